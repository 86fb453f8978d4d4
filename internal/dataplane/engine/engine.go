// Package engine moves bytes between clients and servers and asks a dataplane.Handler
// what to do with them. An Engine decides nothing about routes, policies or servers.
//
// There are two. Goroutine has a goroutine for each client connection, blocking, with all
// waiting done in the runtime's poller: it is the reference for what an exchange is. Loop
// has an event loop for each processor and is the fast path for what is frequent. The
// dialogues in the tests hold for any Engine.
package engine

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
)

// An Engine serves client connections.
type Engine interface {
	// Serve accepts on socket until that is closed and returns nil then. A lack of
	// files or memory does not end it.
	Serve(l *dataplane.Listener, socket net.Listener, h dataplane.Handler) error
	// Shutdown closes the sockets of Serve, lets exchanges end and closes every
	// connection; those that are left when ctx ends are closed by force, and their
	// exchanges end with ErrDrained unless a last answer could be sent. It returns
	// nil if nothing was forced.
	Shutdown(ctx context.Context) error
}

// Config is what an engine may be told. All zero values work.
type Config struct {
	Logger   *slog.Logger     // default: nothing is logged
	Now      func() time.Time // for the Date field; default time.Now
	Panic    func(any)        // told of a panic that ended a connection; default: none
	Draining func() bool      // while true, answers say Connection: close; default: never

	Loops     int           // event loops, of the engine that has them; default one a processor
	Batch     int           // events at once from which on a loop makes its calls together; default 2, negative: never
	Kept      int           // idle connections kept to each server; default 1024
	IdleGrace time.Duration // how long Shutdown waits for a last request on an idle connection; default 500 ms
	Linger    time.Duration // how long a client may take to read an error before its connection is closed; default 2 s
	Sweep     time.Duration // how often waiting clients are looked after and old kept connections closed; default 1 s
}

// Goroutine is the engine with a goroutine for each client connection.
type Goroutine struct {
	conf     Config
	date     date
	conns    clients
	quic     atomic.Int64  // connections of endpoints
	ids      atomic.Uint64 // of connections
	draining atomic.Bool
	force    context.Context // ends when connections are closed by force
	stop     context.CancelFunc
	swept    sync.Once // the sweeper runs
	counts   counters
	spare    spare
	workers  workers
	shakes   chan struct{} // a place for each handshake that may compute at once

	endpoints endpoints

	mu      sync.Mutex // guards what follows
	sockets map[net.Listener]struct{}
	servers map[*kept]struct{} // those that have had a connection
}

// counters of an engine's life.
type counters struct{ dials, reuses, retries, unmet atomic.Uint64 }

// Counts are totals since the engine was made.
type Counts struct {
	Dials  uint64 // connections made to servers
	Reuses uint64 // exchanges on a kept one

	SlowBatches uint64 // times that an event loop was busy for longer than a millisecond at a stretch
	Refused     uint64 // clients that were turned away for lack of file descriptors
	Retries     uint64 // first packets of QUIC whose senders were to show that their address is theirs
	Unmet       uint64 // and those that were refused, for lack of room for a handshake
	Rests       uint64 // times that an event loop rested, to use a quota evenly
}

// New returns an engine that serves nothing yet. Shutdown ends it for good.
func New(c Config) *Goroutine {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Panic == nil {
		c.Panic = func(any) {}
	}
	if c.Draining == nil {
		c.Draining = func() bool { return false }
	}
	if c.Batch == 0 {
		c.Batch = 2
	}
	if c.Kept == 0 {
		c.Kept = 1024
	}
	if c.IdleGrace == 0 {
		c.IdleGrace = 500 * time.Millisecond
	}
	if c.Linger == 0 {
		c.Linger = 2 * time.Second
	}
	if c.Sweep == 0 {
		c.Sweep = time.Second
	}
	g := &Goroutine{conf: c, sockets: map[net.Listener]struct{}{}, servers: map[*kept]struct{}{},
		// More at once would only let everything else wait longer for a processor (E7).
		shakes: make(chan struct{}, runtime.GOMAXPROCS(0))}
	g.spare.look()
	g.force, g.stop = context.WithCancel(context.Background())
	return g
}

// Counts returns the totals.
func (g *Goroutine) Counts() Counts {
	return Counts{Dials: g.counts.dials.Load(), Reuses: g.counts.reuses.Load(), Refused: g.spare.refused.Load(),
		Retries: g.counts.retries.Load(), Unmet: g.counts.unmet.Load()}
}

// some reports whether there are connections of clients.
func (g *Goroutine) some() bool { return g.conns.count.Load() > 0 || g.quic.Load() > 0 }

// closing reports whether connections are not to be kept open.
func (g *Goroutine) closing() bool { return g.draining.Load() || g.conf.Draining() }
