package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

// codes are the statuses that are counted as themselves: those of the IANA registry
// and 499. Every other one is counted as "other", at index 0.
var codes = [...]int{0,
	100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226,
	300, 301, 302, 303, 304, 305, 307, 308,
	400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499,
	500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
}

// codeIndex finds a status in codes.
var codeIndex = func() (index [600]uint8) {
	for i, code := range codes {
		if code > 0 {
			index[code] = uint8(i)
		}
	}
	return index
}()

// methods are the label values of dataplane.Method, in its order.
var methods = [...]string{"other", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"}

// classes are the label values of a status by its first digit.
var classes = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func classOf(status int) int {
	if c := status / 100; c >= 1 && c <= 5 {
		return c
	}
	return 0
}

// routeCounters are of all routes with one label. They outlive reloads.
type routeCounters struct {
	label    string
	inflight atomic.Int64
	in, out  atomic.Uint64
	duration [len(classes)]upstream.Histogram
	local    [len(causes)]atomic.Uint64
	statuses [len(causes)]atomic.Int64 // the last status given for a cause of the configuration

	requests atomic.Pointer[[]*requestCounters] // by listener index; grows under Plane.mu
}

// requestCounters are of one route and listener. The counters of a method are made
// when it is first used: most routes see two or three.
type requestCounters struct {
	byMethod [len(methods)]atomic.Pointer[[len(codes)]atomic.Uint64]
}

// grow makes room for n listeners.
func (c *routeCounters) grow(n int) {
	var have []*requestCounters
	if p := c.requests.Load(); p != nil {
		have = *p
	}
	if len(have) >= n {
		return
	}
	more := append([]*requestCounters(nil), have...)
	for len(more) < n {
		more = append(more, &requestCounters{})
	}
	c.requests.Store(&more)
}

// count notes a finished exchange.
func (c *routeCounters) count(x *dataplane.Exchange, status int, took time.Duration) {
	c.inflight.Add(-1)
	c.in.Add(uint64(x.Bytes.In))
	c.out.Add(uint64(x.Bytes.Out))
	c.duration[classOf(status)].Observe(took)
	if x.Mark.Local {
		if i := causeIndex(x.Mark.Reason); i >= 0 {
			c.local[i].Add(1)
			c.statuses[i].Store(int64(status))
		}
	}
	code := uint8(0)
	if status > 0 && status < len(codeIndex) {
		code = codeIndex[status]
	}
	(*c.requests.Load())[x.Listener.Index].method(x.Request.Method)[code].Add(1)
}

func (c *requestCounters) method(m dataplane.Method) *[len(codes)]atomic.Uint64 {
	slot := &c.byMethod[m]
	if counters := slot.Load(); counters != nil {
		return counters
	}
	slot.CompareAndSwap(nil, new([len(codes)]atomic.Uint64))
	return slot.Load()
}

// listenerCounters are of all addresses of one listener name. They stay for the life of
// the process, as connections of a removed listener may.
type listenerCounters struct {
	name      string
	open      atomic.Int64
	accepted  atomic.Uint64
	refused   atomic.Uint64
	malformed words
}

// words counts by a word. There are at most maxWords of them; the rest is "other".
type words struct {
	mu    sync.Mutex
	count map[string]uint64
}

const maxWords = 64

func (w *words) add(word string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count == nil {
		w.count = make(map[string]uint64)
	}
	if _, known := w.count[word]; !known && len(w.count) >= maxWords {
		word = "other"
	}
	w.count[word]++
}

// each calls do for every word so far.
func (w *words) each(do func(word string, n uint64)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for word, n := range w.count {
		do(word, n)
	}
}

// listenerSet gives each listener name an index for good.
type listenerSet struct {
	all atomic.Pointer[[]*listenerCounters] // replaced under Plane.mu, read by anyone
}

func (s *listenerSet) list() []*listenerCounters {
	if p := s.all.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *listenerSet) at(index int) *listenerCounters { return (*s.all.Load())[index] }

// index returns the place of name, made if need be.
func (s *listenerSet) index(name string) int {
	have := s.list()
	for i, c := range have {
		if c.name == name {
			return i
		}
	}
	more := append(append([]*listenerCounters(nil), have...), &listenerCounters{name: name})
	s.all.Store(&more)
	return len(have)
}
