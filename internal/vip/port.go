package vip

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/clock"
)

// A Port is an interface as the keepers of all virtual addresses on it share it: it
// listens once, and tells each keeper what concerns its address.
type Port struct {
	link   Link
	now    func() clock.Instant
	log    *slog.Logger
	peers  []netip.Addr
	onLink func(up bool)

	heardAt atomic.Int64 // clock.Instant of the last frame from another
	cancel  context.CancelFunc
	loops   sync.WaitGroup

	mu      sync.Mutex
	keepers map[netip.Addr]*Keeper
	ears    map[*ear]struct{}
}

// PortOptions says what a Port must know.
type PortOptions struct {
	Now func() clock.Instant // clock.Now outside tests
	Log *slog.Logger         // nil: no log
	// Peers are the other nodes' own addresses. They are never asked as witnesses of
	// whether this node hears: it is their silence that is in question.
	Peers []netip.Addr
	// OnLink, if set, is told that the interface went up or down. It must not block.
	OnLink func(up bool)
}

// OpenPort starts listening on the link. The caller closes the link after the Port.
func OpenPort(link Link, o PortOptions) *Port {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnLink == nil {
		o.OnLink = func(bool) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Port{
		link: link, now: o.Now, peers: slices.Clone(o.Peers), onLink: o.OnLink, cancel: cancel,
		log:     o.Log.With("interface", link.Name()),
		keepers: map[netip.Addr]*Keeper{},
		ears:    map[*ear]struct{}{},
	}
	// Both loops end with Close.
	p.loops.Go(func() { p.lasting(ctx, "listen", func() error { return link.Watch(ctx, p.heard) }) })
	p.loops.Go(func() { p.lasting(ctx, "follow", func() error { return link.Follow(ctx, p.changed) }) })
	return p
}

// Close drops every address that is held, ends the keepers and stops listening. The
// link is the caller's to close.
func (p *Port) Close() error {
	p.mu.Lock()
	keepers := p.keepers
	p.keepers = map[netip.Addr]*Keeper{}
	p.mu.Unlock()
	var err error
	for _, k := range keepers {
		if e := k.Close(); err == nil {
			err = e
		}
	}
	p.cancel()
	p.loops.Wait()
	return err
}

// Link returns the interface.
func (p *Port) Link() Link { return p.link }

// lasting runs a loop that must live for as long as the port does; what ends it early is
// said, and it is begun again a second later.
func (p *Port) lasting(ctx context.Context, what string, loop func() error) {
	for ctx.Err() == nil {
		err := loop()
		if ctx.Err() != nil {
			return
		}
		p.log.Warn("interface is not watched, trying again in 1s", "doing", what, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// heard takes one frame from another host.
func (p *Port) heard(h Heard) {
	p.heardAt.Store(int64(p.now()))
	if !h.Claim.IsValid() {
		return
	}
	p.mu.Lock()
	k := p.keepers[h.Claim]
	for e := range p.ears {
		e.hear(h)
	}
	p.mu.Unlock()
	if k != nil {
		k.claimed(h.From)
	}
}

// changed takes one change of the interface.
func (p *Port) changed(c Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch c.Kind {
	case Removed:
		if k := p.keepers[c.Addr]; k != nil {
			poke(k.removed)
		}
	case LinkUp:
		p.log.Info("interface is up")
		for _, k := range p.keepers {
			poke(k.linkUp)
		}
		p.onLink(true)
	case LinkDown:
		p.log.Warn("interface is down")
		p.onLink(false)
	}
}

// poke leaves a sign that one reader will find; a sign that is there already is enough.
func poke(sign chan struct{}) {
	select {
	case sign <- struct{}{}:
	default:
	}
}

// An ear listens for claims to one address while a probe runs.
type ear struct {
	addr    netip.Addr
	claimed chan struct{}
}

// hear is called with the port's mutex held.
func (e *ear) hear(h Heard) {
	if h.Claim == e.addr {
		poke(e.claimed)
	}
}

func (p *Port) listen(a netip.Addr) *ear {
	e := &ear{addr: a, claimed: make(chan struct{}, 1)}
	p.mu.Lock()
	p.ears[e] = struct{}{}
	p.mu.Unlock()
	return e
}

func (p *Port) unlisten(e *ear) {
	p.mu.Lock()
	delete(p.ears, e)
	p.mu.Unlock()
}
