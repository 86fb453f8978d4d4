package main

import (
	"net"
	"sync"
	"time"
)

// A gate is before the listeners at which operators and their tools ask. While it is shut nobody
// is let in: whoever comes waits in the kernel, at a socket that two processes may have.
type gate struct {
	mu     sync.Mutex    // guards what follows
	way    chan struct{} // closed while the gate is open
	doors  map[*gated]struct{}
	inside int           // connections that were let in, but for those that may last
	left   chan struct{} // has a value when one of them has gone
}

// newGate returns a gate that is open or not.
func newGate(open bool) *gate {
	g := &gate{way: make(chan struct{}), doors: map[*gated]struct{}{}, left: make(chan struct{}, 1)}
	if open {
		close(g.way)
	}
	return g
}

// guard puts the gate before a listener, of TCP or a Unix socket.
func (g *gate) guard(l net.Listener) *gated {
	d := &gated{Listener: l, gate: g, closed: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.doors[d] = struct{}{}
	return d
}

// open lets in whoever waits.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.way:
		return // it is open
	default:
	}
	for d := range g.doors {
		d.until(time.Time{})
	}
	close(g.way)
}

// shut lets nobody in any more, and returns when those that were let in have gone, or after
// patience.
func (g *gate) shut(patience time.Duration) {
	g.mu.Lock()
	g.way = make(chan struct{})
	var doors []*gated
	for d := range g.doors {
		doors = append(doors, d)
	}
	g.mu.Unlock()
	for _, d := range doors {
		d.until(time.Unix(1, 0)) // whoever waits for somebody to come looks at the gate again
		d.looked()
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for g.count(0) > 0 {
		select {
		case <-g.left:
		case <-timer.C:
			return
		}
	}
}

// count adds to how many were let in, and returns how many there are.
func (g *gate) count(more int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside += more
	if more < 0 {
		poke(g.left)
	}
	return g.inside
}

// opening is closed when the gate is open.
func (g *gate) opening() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.way
}

// A gated listener is one behind a gate.
type gated struct {
	net.Listener
	gate      *gate
	accepting sync.Mutex
	closed    chan struct{}
	once      sync.Once
}

// looked returns when nobody is within accept who has not seen the gate as it is.
func (d *gated) looked() {
	d.accepting.Lock()
	defer d.accepting.Unlock()
}

// Accept implements net.Listener.
func (d *gated) Accept() (net.Conn, error) {
	for {
		select {
		case <-d.gate.opening():
		case <-d.closed:
			return nil, net.ErrClosed
		}
		if c, err := d.accept(); c != nil || err != nil {
			return c, err
		}
	}
}

// accept waits for somebody to come. It returns nothing if the gate is shut meanwhile.
func (d *gated) accept() (net.Conn, error) {
	d.accepting.Lock()
	defer d.accepting.Unlock()
	opening := d.gate.opening()
	select {
	case <-opening:
	default:
		return nil, nil
	}
	c, err := d.Listener.Accept()
	if err == nil {
		d.gate.count(1)
		return &visitor{Conn: c, gate: d.gate}, nil
	}
	if d.gate.opening() != opening {
		return nil, nil
	}
	return nil, err
}

// until sets when Accept gives up.
func (d *gated) until(t time.Time) {
	if l, ok := d.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = l.SetDeadline(t) // one that is closed gives up anyway
	}
}

// Close implements net.Listener.
func (d *gated) Close() error {
	d.once.Do(func() {
		close(d.closed)
		d.gate.mu.Lock()
		defer d.gate.mu.Unlock()
		delete(d.gate.doors, d)
	})
	return d.Listener.Close()
}

// bare returns the listener behind a gate.
func bare(l net.Listener) net.Listener {
	if d, ok := l.(*gated); ok {
		return d.Listener
	}
	return l
}

// A visitor is a connection that a gate has let in.
type visitor struct {
	net.Conn
	gate *gate
	gone sync.Once
}

// Lasts says that nobody waits for the end of the connection.
func (v *visitor) Lasts() { v.gone.Do(func() { v.gate.count(-1) }) }

// Close implements net.Conn.
func (v *visitor) Close() error {
	v.Lasts()
	return v.Conn.Close()
}
