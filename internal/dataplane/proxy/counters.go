package proxy

import (
	"encoding/hex"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

// routeCounters are of all routes with one label. They outlive reloads.
type routeCounters struct {
	label    string
	inflight atomic.Int64
	in, out  atomic.Uint64
	duration [len(classes)]upstream.Histogram
	overhead upstream.Histogram
	mirror   mirrorCounters
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
	defer c.inflight.Add(-1) // last: what is no longer in progress has been counted
	c.in.Add(uint64(x.Bytes.In))
	c.out.Add(uint64(x.Bytes.Out))
	if d := &c.duration[classOf(status)]; x.Mark.Trace.Sampled {
		d.Trace(took, hex.EncodeToString(x.Mark.Trace.ID[:]), x.Times.Start.Add(took))
	} else {
		d.Observe(took)
	}
	if own, known := overhead(x, took); known {
		c.overhead.Observe(own)
	}
	if x.Mark.Local {
		if i := causeIndex(x.Mark.Reason); i >= 0 {
			c.local[i].Add(1)
			c.statuses[i].Store(int64(status))
		}
	}
	(*c.requests.Load())[x.Listener.Index].method(x.Request.Method)[codePlace(status)].Add(1)
}

// shortBody is the length up to which an answer's body comes with its head, so that what
// follows the head is our own doing.
const shortBody = 8 << 10

// overhead is how long the exchange was in our hands: until the request went out, and
// from the head of a short answer to the end. Waiting for a server, and for client and
// server in a long body, is not ours. It is not known of an exchange with several
// attempts or one that broke off.
func overhead(x *dataplane.Exchange, took time.Duration) (own time.Duration, known bool) {
	t := &x.Times
	switch {
	case x.Mark.Local && x.Attempt == 0:
		return took - t.Head.Sub(t.Start), true
	case x.Mark.Local || x.Attempt != 1 || t.Sent.IsZero() || t.FirstByte.IsZero():
		return 0, false
	}
	own = t.Sent.Sub(t.Head) - t.Dial
	if r := &x.Response; r.Status != 101 && (r.NoBody || r.Length >= 0 && r.Length <= shortBody) {
		own += took - t.FirstByte.Sub(t.Start)
	}
	return own, true
}

func (c *requestCounters) method(m dataplane.Method) *[len(codes)]atomic.Uint64 {
	slot := &c.byMethod[m]
	if counters := slot.Load(); counters != nil {
		return counters
	}
	slot.CompareAndSwap(nil, new([len(codes)]atomic.Uint64))
	return slot.Load()
}
