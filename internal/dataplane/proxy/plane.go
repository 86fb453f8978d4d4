// Package proxy is the data plane put together: it compiles a configuration into a
// snapshot and decides, for each exchange, what an engine then does.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/cert"
	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/accesslog"
	"proxyd/internal/dataplane/engine"
	"proxyd/internal/dataplane/filter"
	"proxyd/internal/dataplane/otlp"
	"proxyd/internal/dataplane/overload"
	"proxyd/internal/dataplane/upstream"
)

// Options are what a Plane needs of the world. Engine must be given; the rest has
// working zero values.
type Options struct {
	Engine    engine.Engine
	Logger    *slog.Logger                                        // default: nothing is logged
	Listen    func(network, address string) (net.Listener, error) // default: Listen of this package
	Now       func() time.Time                                    // default: time.Now
	AccessLog io.Writer                                           // what log.access.output = "stdout" means; default os.Stdout
	Upstream  upstream.Env                                        // Log is filled in
	Curbed    func() bool                                         // of overload.Gate
	Idle      func() bool                                         // likewise
	Disk      cert.Disk                                           // where certificates are; default: cert.ThisDisk
	Shut      bool                                                // listeners are open and nobody is let in before Open
	Berths    func(address string) []Berth                        // who is at an UDP address already; default: nobody
	Gone      func(pid int) bool                                  // whether a process of those has ended; default: none has
}

// A Plane is the data plane of one process. It implements dataplane.Handler for the
// engine and prometheus.Collector for the metrics page.
type Plane struct {
	opt       Options
	answers   map[string]*answer
	current   atomic.Pointer[snapshot]
	conns     *conns
	gate      overload.Gate
	floods    floods
	refused   overload.Room // who waits to be told so
	listeners listenerSet
	coders    filter.Coders
	tls       *handshakes
	managed   atomic.Pointer[Managed] // nil without ACME
	front     *front
	access    *accesslog.Log
	spans     *otlp.Exporter
	room      dataplane.Room // for request bodies that are held in memory
	panics    atomic.Uint64
	draining  atomic.Bool
	broken    atomic.Pointer[string] // a listener whose engine gave up, and why
	probing   atomic.Int32           // Probes under way
	probes    sync.Map               // netip.AddrPort of their connections
	sessions  tls.ClientSessionCache // of them, so that a handshake costs little
	mirrors   errands                // copies of requests under way
	reloads   struct {
		ok             atomic.Bool
		at             atomic.Int64 // nanoseconds since 1970
		taken, refused atomic.Uint64
		undone         atomic.Uint64
	}
	watch   *upstream.Watch // checks and name look-ups
	settled atomic.Bool     // the first round of checks is done, or was waited for long enough
	waiting atomic.Int64    // until when it is waited for, nanoseconds since 1970

	mu      sync.Mutex             // guards what follows: one Apply, Drain or Shutdown at a time
	madeKey []byte                 // of sticky cookies, of a node without a cluster
	trust   *cert.Trust            // files about other sides of TLS
	doubt   func()                 // ends the look after them; nil before there were any
	doors   map[string]*door       // by address as configured
	packets map[string]*packetDoor // likewise
	parting map[string]*packetDoor // the last of each address that is gone, until its connections are
	given   bool                   // another process is taking this one's place

	steering Steering
}

const (
	// resolveTime is how long Apply waits for the names of new servers.
	resolveTime = 2 * time.Second

	// settleTime is how long a new node waits for its first round of checks before it
	// counts as ready.
	settleTime = 3 * time.Second
)

// New returns a Plane that serves nothing before the first Apply. Shutdown ends it.
func New(o Options) *Plane {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Listen == nil {
		o.Listen = Listen
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Disk.ReadFile == nil {
		o.Disk = cert.ThisDisk()
	}
	p := &Plane{
		opt:     o,
		gate:    overload.Gate{Curbed: o.Curbed, Idle: o.Idle},
		answers: newAnswers(),
		conns:   newConns(),
		access:  accesslog.New(accesslog.Options{Logger: o.Logger, Stdout: o.AccessLog}),
		spans:   otlp.New(o.Logger),
		doors:   map[string]*door{},
		packets: map[string]*packetDoor{},
		parting: map[string]*packetDoor{},

		sessions: tls.NewLRUClientSessionCache(0),
	}
	p.refused.Early = p.gate.Early
	p.tls = &handshakes{plane: p, certs: cert.NewStore(o.Disk, o.Logger), whose: newConns()}
	p.front = &front{plane: p}
	p.opt.Upstream.Log = o.Logger
	p.watch = upstream.NewWatch(p.opt.Upstream)
	p.mirrors.life, p.mirrors.end = context.WithCancel(context.Background())
	return p
}

// Apply takes c into use: compile, open new listeners, publish, retire what is no
// longer wanted. On error all is as before. Exchanges in progress end with the
// snapshot that they began with.
func (p *Plane) Apply(c *config.Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.apply(c)
	p.noteReload(err == nil)
	return err
}

// NoteRejected counts a configuration that was refused before it came to Apply.
func (p *Plane) NoteRejected() { p.noteReload(false) }

// RollBack takes c, the configuration before, into use again, after another part of the
// node has refused the one that Apply took.
func (p *Plane) RollBack(c *config.Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reloads.undone.Add(1)
	p.reloads.ok.Store(false)
	p.reloads.at.Store(p.opt.Now().UnixNano())
	return p.apply(c)
}

// NotePanic counts a panic that the engine caught.
func (p *Plane) NotePanic(any) { p.panics.Add(1) }

func (p *Plane) noteReload(ok bool) {
	p.reloads.ok.Store(ok)
	p.reloads.at.Store(p.opt.Now().UnixNano())
	if ok {
		p.reloads.taken.Add(1)
	} else {
		p.reloads.refused.Add(1)
	}
}

func (p *Plane) apply(c *config.Config) error {
	if p.draining.Load() {
		return errors.New("the data plane is draining")
	}
	doors := wanted(c, &p.listeners, &p.room, p.tls, p.front)
	old := p.current.Load()
	key, err := p.cookieKey(c)
	if err != nil {
		return err
	}
	trust, err := trustOf(c, p.opt.Disk)
	if err != nil {
		return err
	}
	s, err := compile(c, old, p.steering, key, len(p.listeners.list()), trust, filter.Env{Node: c.Node.Name, Now: p.opt.Now, Coders: &p.coders})
	if err != nil {
		return err
	}
	certs, err := p.opt.Disk.LoadAll(pairsOf(c))
	if err != nil {
		return err
	}
	lines, err := p.access.Open(c.Log.Access, c.Node.Name)
	if err != nil {
		return err
	}
	all, fresh, err := p.open(c, doors)
	if err != nil {
		lines.Discard()
		return err
	}
	p.resolve(s)

	// Nothing fails from here on.
	p.access.Use(lines)
	p.tls.use(c, certs, trust)
	p.believe(trust)
	p.spans.Use(c.Trace.OTLP, c.Node.Name, c.Cluster.Name)
	p.watch.Use(s.pools)
	p.waiting.CompareAndSwap(0, p.opt.Now().Add(settleTime).UnixNano())
	s.steer(p.steering)
	p.current.Store(s)
	p.room.SetLimit(int64(c.Limits.Held))
	if old != nil {
		for name, pool := range old.pools {
			pool.Retire(s.pools[name])
		}
	}
	p.broken.Store(nil)
	before := p.doors
	p.doors = make(map[string]*door, len(all))
	for _, d := range all {
		p.doors[d.address] = d
	}
	for _, d := range fresh {
		p.attend(d)
	}
	for address, d := range before {
		if p.doors[address] != d {
			d.socket.Close()
		}
	}
	p.usePackets(all)
	return nil
}

// pairsOf are the certificates of c. A witness serves nobody, and need not have the files.
func pairsOf(c *config.Config) []cert.Pair {
	var pairs []cert.Pair
	if c.Cluster.Witness {
		return nil
	}
	for _, x := range c.Cert {
		pairs = append(pairs, cert.Pair{Cert: x.Cert, Key: x.Key})
	}
	return pairs
}

// resolve waits a little for the names of servers that have no address yet.
func (p *Plane) resolve(s *snapshot) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTime)
	defer cancel()
	var all sync.WaitGroup
	for _, pool := range s.pools {
		all.Go(func() { pool.Resolve(ctx, p.opt.Upstream) })
	}
	all.Wait()
}

// serve runs the engine on one door. When it ends without being told to, the node is
// no longer ready, and says why.
func (p *Plane) serve(d *door) {
	err := p.opt.Engine.Serve(d.listener, d.socket, p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining.Load() || p.doors[d.address] != d {
		return
	}
	d.socket.Close()
	delete(p.doors, d.address) // so that the next Apply opens it again
	p.lost(d, err)
}

// ReopenLogs opens the access log's file again by its name.
func (p *Plane) ReopenLogs() { p.access.Reopen() }

// Ready reports whether the plane serves: a configuration is applied, its listeners
// are open, every server that is checked was checked once since the start, and it is not
// draining. Otherwise it says what is missing.
func (p *Plane) Ready() (ok bool, why string) {
	switch {
	case p.current.Load() == nil:
		return false, "no configuration is applied"
	case p.draining.Load():
		return false, "draining"
	case p.broken.Load() != nil:
		return false, *p.broken.Load()
	case !p.checked():
		return false, "the first round of checks is under way"
	}
	return true, ""
}

// checked reports whether the first round of checks since the start is done. Servers that
// hang do not hold the node up for ever.
func (p *Plane) checked() bool {
	if !p.settled.Load() && (p.watch.Settled() || p.opt.Now().UnixNano() >= p.waiting.Load()) {
		p.settled.Store(true)
	}
	return p.settled.Load()
}

// Drain closes the listeners and returns when every connection is closed: idle ones
// at once, the others after their exchange, all by force when ctx ends.
func (p *Plane) Drain(ctx context.Context) error {
	p.draining.Store(true)
	p.mu.Lock()
	for _, d := range p.doors {
		d.socket.Close()
	}
	for address, e := range p.packets {
		p.part(address, e)
	}
	p.mu.Unlock()
	return p.opt.Engine.Shutdown(ctx)
}

// Shutdown drains, ends checks, look-ups and copies of requests, and writes the rest of
// the access log.
// The Plane cannot be used again.
func (p *Plane) Shutdown(ctx context.Context) error {
	err := p.Drain(ctx)
	p.mirrors.close()
	p.mu.Lock()
	p.tls.close()
	if p.doubt != nil {
		p.doubt()
	}
	p.mu.Unlock()
	p.watch.Close()
	p.access.Close(ctx)
	p.spans.Close(ctx)
	return err
}
