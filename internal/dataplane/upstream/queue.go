package upstream

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// A queue is where exchanges wait, first come first served, while every server that may
// have them has max_conns. It is part of a pool's Counters, so that those of a former
// snapshot keep their place.
type queue struct {
	length atomic.Int64 // who gives a server back looks at this alone

	mu          sync.Mutex // guards what follows, and all Waiters in the queue
	first, last *Waiter
	looking     bool // look is due
}

// lookEvery is how often the queue is served though no server was given back: one may
// have come up.
const lookEvery = 50 * time.Millisecond

// A Waiter is an exchange's place in a queue. Its owner calls Leave if it does not want
// it any more before Result has said anything but ErrWaiting.
type Waiter struct {
	pool   *Pool
	ask    Ask
	resume func()
	timer  *time.Timer
	since  time.Time

	state      waiting
	server     *Server // granted
	prev, next *Waiter
}

type waiting uint8

const (
	waits waiting = iota
	granted
	late
)

// What becomes of one that waits.
var (
	ErrWaiting = errors.New("still waiting")
	ErrLate    = errors.New("waited for too long")
)

// Wait takes a place in the pool's queue, after Pick said ErrFull. resume is called,
// maybe from another goroutine, when Result has something to say; once more at most, and
// even after Leave. If there is a server by now it is returned at once; the error is
// ErrFull if the queue has no place either.
func (p *Pool) Wait(a Ask, resume func()) (*Server, *Waiter, error) {
	conf := p.Config.Queue
	if conf == nil {
		return nil, nil, ErrFull
	}
	q := &p.queue
	q.mu.Lock()
	if q.length.Load() >= int64(conf.Size) {
		q.mu.Unlock()
		return nil, nil, ErrFull
	}
	w := &Waiter{pool: p, ask: Ask{Hash: a.Hash, Keep: a.Keep}, resume: resume, since: time.Now()}
	q.push(w)
	// What was given back before the length was seen to be more than 0 is found here.
	ready := q.serve()
	done := w.state == granted
	if !done {
		w.timer = time.AfterFunc(conf.Wait, func() { q.expire(w) })
		q.watch()
	}
	q.mu.Unlock()
	for _, r := range ready {
		if r != w {
			r.resume()
		}
	}
	if done {
		return w.server, nil, nil
	}
	return nil, w, nil
}

// Result returns the server that w was granted, ErrWaiting, or ErrLate.
func (w *Waiter) Result() (*Server, error) {
	q := &w.pool.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	switch w.state {
	case granted:
		return w.server, nil
	case late:
		return nil, ErrLate
	}
	return nil, ErrWaiting
}

// Leave gives the place up, and back the server if one was granted.
func (w *Waiter) Leave() {
	q := &w.pool.queue
	q.mu.Lock()
	if w.state == waits {
		q.remove(w, late)
	}
	server := w.server
	w.server = nil
	q.mu.Unlock()
	if server != nil {
		w.pool.Release(server)
	}
}

// QueueLength returns how many exchanges wait.
func (c *Counters) QueueLength() int64 { return c.queue.length.Load() }

// vacated has the queue served after a place has become free.
func (q *queue) vacated() {
	if q.length.Load() == 0 {
		return
	}
	q.mu.Lock()
	ready := q.serve()
	q.mu.Unlock()
	for _, w := range ready {
		w.resume()
	}
}

// serve gives servers to those who wait, in their order, as far as there are any, and
// returns who got one. Those who wait for a server of their own hold nobody else up. mu is
// held.
func (q *queue) serve() (ready []*Waiter) {
	blocked := false
	for w := q.first; w != nil; {
		next := w.next
		if w.ask.Keep != nil || !blocked {
			w.ask.Now = time.Now()
			s, err := w.pool.take(w.ask)
			if err == nil {
				w.server = s
				q.remove(w, granted)
				ready = append(ready, w)
			} else if w.ask.Keep == nil {
				blocked = true
			}
		}
		w = next
	}
	return ready
}

// watch has the queue served now and then while someone waits. mu is held.
func (q *queue) watch() {
	if q.looking {
		return
	}
	q.looking = true
	time.AfterFunc(lookEvery, func() {
		q.vacated()
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.looking = false; q.first != nil {
			q.watch()
		}
	})
}

func (q *queue) expire(w *Waiter) {
	q.mu.Lock()
	waited := w.state == waits
	if waited {
		q.remove(w, late)
	}
	q.mu.Unlock()
	if waited {
		w.resume()
	}
}

// push puts w at the end. mu is held.
func (q *queue) push(w *Waiter) {
	if w.prev = q.last; w.prev != nil {
		w.prev.next = w
	} else {
		q.first = w
	}
	q.last = w
	q.length.Add(1)
}

// remove takes w out, which has become state. mu is held.
func (q *queue) remove(w *Waiter, state waiting) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.last = w.prev
	}
	w.prev, w.next, w.state = nil, nil, state
	if w.timer != nil {
		w.timer.Stop()
	}
	q.length.Add(-1)
	w.pool.Queued.Observe(time.Since(w.since))
}
