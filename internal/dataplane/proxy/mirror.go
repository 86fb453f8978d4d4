package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

const (
	// mirrorsAtOnce is how many copies of a route's requests may be under way.
	mirrorsAtOnce = 64

	// mirrorBody is up to which length a body is copied, if the route's buffer is not
	// larger.
	mirrorBody = 64 << 10
)

// A mirror copies a share of a route's requests to another pool. The exchange that is
// copied does not wait for the copy, nor learn what becomes of it.
type mirror struct {
	pool     string
	percent  uint64
	counters *mirrorCounters
}

// mirrorCounters are of all routes with one label, and outlive reloads.
type mirrorCounters struct {
	seen    atomic.Uint64 // requests that may be copied
	busy    atomic.Int64  // copies under way
	results [len(mirrorResults)]atomic.Uint64
}

// What becomes of a copy, the index of mirrorCounters.results.
const (
	mirrorOK = iota
	mirrorFailed
	mirrorBusy
	mirrorBodyLong
)

// mirrorResults is read-only.
var mirrorResults = [...]string{mirrorOK: "ok", mirrorFailed: "failed", mirrorBusy: "dropped_busy", mirrorBodyLong: "dropped_body"}

// takes reports whether x is one of the share. It is spread evenly: of 10 % every tenth,
// not one by chance.
func (m *mirror) takes(x *dataplane.Exchange, r *compiledRoute) bool {
	if x.Request.WebSocket && r.WebSocket {
		return false // a tunnel has no copy
	}
	n := (m.counters.seen.Add(1) - 1) % 100
	return (n+1)*m.percent/100 != n*m.percent/100
}

// mirrorable reports whether the body of q may be read to hand for a copy's sake alone: it
// has a length, so that reading it ends, and the client does not ask a server first.
func (r *compiledRoute) mirrorable(q *dataplane.Request) bool {
	return q.Length >= 0 && q.Length <= r.Buffer && !q.Continue
}

// mirror sends a copy of x, as x goes to its own server, to the route's other pool, if it
// may be copied and there is room.
func (p *Plane) mirror(x *dataplane.Exchange, r *compiledRoute) {
	q, c := &x.Request, r.mirror.counters
	size := int64(len(x.Body))
	switch {
	case q.Continue, q.Length != 0 && x.Body == nil, size > r.Buffer:
		c.results[mirrorBodyLong].Add(1)
		return
	case c.busy.Add(1) > mirrorsAtOnce || !p.room.Take(size):
		c.busy.Add(-1)
		c.results[mirrorBusy].Add(1)
		return
	}
	s, _ := of(x)
	copied, body, client := q.Clone(), bytes.Clone(x.Body), x.Mark.ClientIP
	copied.Chunked, copied.Length = false, size
	pool := s.pools[r.mirror.pool]
	sent := p.mirrors.run(func(life context.Context) {
		defer func() {
			if v := recover(); v != nil {
				p.NotePanic(v) // no copy is worth the process
			}
			p.room.Give(size)
			c.busy.Add(-1)
		}()
		t := pool.Config.Timeout
		ctx := life
		if total := t.Connect + t.Send + t.Read; total > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(life, total)
			defer cancel()
		}
		answer, err := p.fetcher(s).Fetch(ctx, pool.Name, copied, body, client)
		if err == nil && answer.Read != nil {
			_, err = io.Copy(io.Discard, answer.Read)
			answer.Read.Close()
		}
		switch {
		case err == nil:
			c.results[mirrorOK].Add(1)
		case errors.Is(err, upstream.ErrFull):
			c.results[mirrorBusy].Add(1)
		default:
			c.results[mirrorFailed].Add(1)
		}
	})
	if !sent {
		p.room.Give(size)
		c.busy.Add(-1)
	}
}

// errands are goroutines that end with the plane.
type errands struct {
	life context.Context
	end  context.CancelFunc

	mu     sync.RWMutex // guards closed, and all against a Wait too early
	closed bool
	all    sync.WaitGroup
}

// run has f run with a context that ends with e. It is false after close.
func (e *errands) run(f func(context.Context)) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return false
	}
	e.all.Go(func() { f(e.life) })
	return true
}

// close ends what runs, waits for it and lets nothing more run.
func (e *errands) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.end()
	e.all.Wait()
}
