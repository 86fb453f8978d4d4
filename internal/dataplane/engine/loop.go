package engine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
)

// Loop is the engine of the fast path: an event loop for each processor, each with an
// epoll of its own, and no goroutine for a connection. It has exchanges over HTTP/1.1
// on light routes, in clear or sealed, and the handshakes. Whatever may block, and what is rare
// and long (upgrades), go to the goroutine engine inside it, and the connection comes back when
// that is over.
type Loop struct {
	side    *Goroutine // also has the settings, the counts and the open sockets
	loops   []*loop
	fault   error         // of making the loops; Serve returns it
	patient bool          // the loops may wait by themselves
	pacer   pacer         // of their processor time
	relief  relief        // for Go's poller, while they do
	turn    atomic.Uint32 // whose connection the next one is, if another accepts

	count atomic.Int64  // client connections of the loops
	slow  atomic.Uint64 // batches that took longer than slowBatch
	empty chan struct{} // told, with room for one, when count has become 0
	homes sync.Map      // *dataplane.Server to *home
}

// NewLoop returns an engine that serves nothing yet. Shutdown ends it for good.
func NewLoop(c Config) *Loop {
	e := prepareLoop(c)
	e.make()
	return e
}

// prepareLoop returns an engine whose loops are still to be made.
func prepareLoop(c Config) *Loop {
	if c.Loops <= 0 {
		c.Loops = runtime.NumCPU()
	}
	e := &Loop{side: New(c), empty: make(chan struct{}, 1), patient: runtime.GOMAXPROCS(0) > c.Loops}
	return e
}

// Counts returns the totals, of connections that were handed over too.
func (e *Loop) Counts() Counts {
	c := e.side.Counts()
	c.SlowBatches, c.Rests = e.slow.Load(), e.pacer.rests.Load()
	return c
}

// Pace tells of a quota on the processor time of this process: so much in each period. 0 is
// none. The loops use it evenly, rather than all of it at once and then be stopped.
func (e *Loop) Pace(quota, period time.Duration) { e.pacer.set(quota, period) }

// Spare reports whether the loops use clearly less than a quota allows.
func (e *Loop) Spare() bool { return e.pacer.spare.Load() }

// Serve implements Engine. A *Socket is accepted on by the loops; any other listener by
// a goroutine, for them.
func (e *Loop) Serve(l *dataplane.Listener, socket net.Listener, h dataplane.Handler) error {
	if e.fault != nil {
		return e.fault
	}
	d := &door{listener: l, handler: h}
	s, ok := socket.(*Socket)
	if !ok {
		return e.side.accept(l, socket, func(conn net.Conn) error { return e.bring(d, conn) })
	}
	if !e.side.enter(socket) {
		socket.Close()
		return nil
	}
	defer e.side.leave(socket)
	d.socket = s
	closed, err := e.open(d)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	if err == nil {
		<-closed
	}
	return err
}

// A door is where connections come in. It never changes.
type door struct {
	listener *dataplane.Listener
	handler  dataplane.Handler
	socket   *Socket // nil if another accepts
}

// make starts the loops. They end with Shutdown.
func (e *Loop) make() {
	for i := range e.side.conf.Loops {
		l, err := newLoop(e, i)
		if err != nil {
			e.fault = err
			e.end()
			return
		}
		e.loops = append(e.loops, l)
	}
	e.relief = newRelief()
	var running sync.WaitGroup
	for _, l := range e.loops {
		running.Go(l.run)
	}
	go func() { // ends with the loops
		running.Wait()
		e.relief.stop()
	}()
}

// end lets the loops end. What came to one of them after Shutdown had seen the last
// connection go is closed.
func (e *Loop) end() {
	for _, l := range e.loops {
		l.post(func() {
			l.over = true
			l.cut()
		})
	}
}

// bring gives a connection that another has accepted to one of the loops.
func (e *Loop) bring(d *door, conn net.Conn) error {
	defer conn.Close()
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return notTCP(d.listener, conn)
	}
	if e.side.crowded(d.listener, c) {
		return nil
	}
	client := addrOf(c)
	fd, err := dupOf(c)
	if err != nil {
		return nil // as if it had not been accepted
	}
	e.give(d, int32(fd), client)
	return nil
}

// give gives a connection to the loop whose turn it is. Shutdown waits for it from now
// on.
func (e *Loop) give(d *door, fd int32, client netip.AddrPort) {
	e.entered()
	l := e.next()
	if !l.post(func() { l.welcome(d, fd, client) }) {
		closeFD(fd)
		e.left()
	}
}

// next returns the loop whose turn it is.
func (e *Loop) next() *loop { return e.loops[int(e.turn.Add(1))%len(e.loops)] }

// entered and left count the client connections of the loops.
func (e *Loop) entered() { e.count.Add(1) }

func (e *Loop) left() {
	if e.count.Add(-1) == 0 {
		select {
		case e.empty <- struct{}{}:
		default:
		}
	}
}

// Shutdown implements Engine, in the way of the goroutine engine.
func (e *Loop) Shutdown(ctx context.Context) error {
	g := e.side
	defer g.stop()
	g.close()
	defer e.end()
	for _, l := range e.loops {
		l.post(l.dismiss)
	}
	// What is with the goroutine engine is told at once; what the loops hand over later
	// is told by the second call.
	aside := make(chan error, 1)
	go func() { aside <- g.drain(ctx) }() // ends with ctx at the latest
	var forced error
	for e.count.Load() > 0 {
		select {
		case <-e.empty:
		case <-ctx.Done():
			forced = dataplane.ErrDrained
			for _, l := range e.loops {
				l.post(l.cut)
			}
			for e.count.Load() > 0 {
				<-e.empty
			}
		}
	}
	if err := errors.Join(forced, <-aside, g.drain(ctx)); err != nil {
		return dataplane.ErrDrained
	}
	return nil
}
