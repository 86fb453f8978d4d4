package engine

import (
	"sync"
	"time"
	"unsafe"

	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/http2"
)

// An h2stream is a stream of HTTP/2 with its exchange.
type h2stream struct {
	streamed
	conn    *h2conn
	flow    http2.Stream  // belongs to the connection's state
	in, out chan struct{} // who reads, and who sends, is to look again
	refused error         // why there is an answer without an exchange
	arrived moment        // when the end of the request's head came; 0: not known
	lag     func() time.Duration
	queued  bool  // waits in the connection's turns
	moved   int64 // what the connection had sent when the wait began that is judged
}

// streamOf returns the h2stream that s is the flow of.
func streamOf(s *http2.Stream) *h2stream {
	return (*h2stream)(unsafe.Add(unsafe.Pointer(s), -int(unsafe.Offsetof(h2stream{}.flow))))
}

// h2streams is a cache without a meaning of its own.
var h2streams = sync.Pool{New: func() any {
	s := &h2stream{in: make(chan struct{}, 1), out: make(chan struct{}, 1)}
	s.lag = func() time.Duration { return time.Duration(now() - s.arrived) }
	return s
}}

// newH2Stream returns the stream of a request whose fields are about to be decoded.
func newH2Stream(h *h2conn, id uint32) *h2stream {
	c := h.c
	s := h2streams.Get().(*h2stream)
	s.conn, s.refused = h, nil
	s.flow.Begin(id)
	drainSignal(s.in)
	drainSignal(s.out)
	d := desks.Get().(*desk)
	s.open(c.engine, c.handler, c.listener, s, d)
	s.private = &c.own
	x := d.ask(c.listener, c.peer)
	x.TLS, x.ConnID = c.state, c.id
	s.flow.Decoder.Begin(&x.Request, d.in, http1.LimitsOf(&c.listener.Limits))
	x.Request.Version = 2
	return s
}

// free gives s back.
func (s *h2stream) free() {
	s.conn, s.refused = nil, nil
	h2streams.Put(s)
}

// work has the exchange, in a goroutine of the engine's.
func (s *h2stream) work() {
	h := s.conn
	d := s.desk
	text := s.flow.Decoder.Text()
	if len(text) > len(d.in) || cap(text) != cap(d.in) {
		d.in = text[:cap(text)]
	}
	s.exchange.head, s.have = len(text), len(text)
	if s.arrived != 0 {
		// From its last bytes' coming to its turn among the goroutines: both wait for a processor.
		d.x.Lag = s.lag
	}
	s.serve(s.refused)
	h.mu.Lock()
	h.state.Done(&s.flow)
	h.kick()
	s.free()
	h.done()
	h.mu.Unlock()
}

func (s *h2stream) read(b []byte, l *limit) (int, error) {
	h := s.conn
	begun := now()
	waited := false
	for {
		h.mu.Lock()
		n, err := h.state.Read(&s.flow, b)
		h.kick()
		h.mu.Unlock()
		if n > 0 || err != nil {
			if n > 0 && waited && l.pace != nil && !l.pace.add(time.Duration(now()-begun), int64(n)) {
				return 0, l.late
			}
			return n, err
		}
		if err := s.await(s.in, l, &begun); err != nil {
			return 0, err
		}
		waited = true
	}
}

func (s *h2stream) trailers() []byte {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return append([]byte(nil), s.flow.Trailers()...)
}

func (s *h2stream) send(p part, l *limit) (int, error) {
	h := s.conn
	begun := now()
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.grant()
	defer h.turns.leave(s)
	s.moved = h.state.Moved()
	size := len(p.a) + len(p.b)
	tail := len(p.trailers) > 0
	sent := 0
	if p.head != nil {
		sent = h.state.Head(&s.flow, p.head, p.date, p.last && size == 0 && !tail)
	}
	for {
		if err := s.broken(); err != nil {
			return sent, err
		}
		taken, n := 0, 0
		if size == 0 || h.turns.mayGo(s) { // an end alone needs neither room nor window
			taken, n = h.state.Data(&s.flow, p.a, p.b, p.last && !tail, len(h.turns.waiting) > 0)
		}
		sent += n
		k := min(taken, len(p.a))
		p.a, p.b = p.a[k:], p.b[taken-k:]
		if size -= taken; size == 0 && (s.flow.Gone() || !p.last || tail) {
			break
		}
		h.turns.queue(s)
		h.grant()
		h.kick()
		h.mu.Unlock()
		if l.pace != nil {
			l.pace.excuse = s.crowded
		}
		err := s.await(s.out, l, &begun)
		if err == nil && taken > 0 && l.pace != nil && !l.pace.add(time.Duration(now()-begun), int64(taken)) {
			err = l.late
		}
		if taken > 0 {
			begun = now()
			l.since = begun
		}
		h.mu.Lock()
		if err != nil {
			return sent, err
		}
	}
	if p.last && tail {
		sent += h.state.EndWith(&s.flow, p.trailers)
	}
	h.kick()
	return sent, nil
}

// crowded reports whether s waits for its turn among the streams of its connection, though the
// client lets it send. How fast the client takes what they all send, the writer judges. A window
// of the connection that is shut is all streams' own: it is the client's fault only if it was not
// opened for as much as one client has to take, whoever got it.
func (s *h2stream) crowded() bool {
	state := s.conn.state
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	moved := state.Moved() - s.moved
	s.moved = state.Moved()
	p := &s.desk.pace
	return state.MaySend(&s.flow) || state.Starved(&s.flow) && moved >= p.least()
}

// broken says why nothing can be sent. The connection's mutex is held.
func (s *h2stream) broken() error {
	switch {
	case s.conn.lost != nil:
		return s.conn.lost
	case s.flow.Fault() != nil:
		return s.flow.Fault()
	}
	return nil
}

// await waits until c is signalled, as long as l allows. begun is when the wait that is
// counted began.
func (s *h2stream) await(c chan struct{}, l *limit, begun *moment) error {
	for {
		if err := s.interrupted(); err != nil {
			return err
		}
		due := l.due(*begun)
		if due == 0 {
			<-c
			return s.interrupted()
		}
		timer := time.NewTimer(time.Duration(due - now()))
		select {
		case <-c:
			timer.Stop()
			return s.interrupted()
		case <-timer.C:
		}
		t := now()
		if l.until != 0 && t >= l.until {
			return l.over
		}
		if l.also != nil {
			l.since = max(l.since, l.also(t))
		}
		if l.each > 0 && t >= l.since+moment(l.each) {
			return l.late
		}
		if l.pace != nil && t >= due {
			if !l.pace.add(time.Duration(t-*begun), 0) {
				return l.late
			}
			*begun = t
		}
	}
}

func (s *h2stream) reset(err error) {
	h := s.conn
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.Reset(&s.flow, codeOf(err))
	h.kick()
}

func (s *h2stream) wake() {
	signal(s.in)
	signal(s.out)
}

// signal has who waits for c look again.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func drainSignal(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}
