package upstream

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// An Env is what pools need of the world. All fields but Wait have working zero values.
type Env struct {
	Log     *slog.Logger                                                 // default: nothing is logged
	Now     func() time.Time                                             // default: time.Now
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error) // default: the system's resolver
	Dial    func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	Wait    *sync.WaitGroup // counts the goroutines that Start began
}

// Filled returns e with the default for every zero field.
func (e Env) Filled() Env {
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.Resolve == nil {
		e.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if e.Dial == nil {
		e.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", to.String())
		}
	}
	if e.Wait == nil {
		e.Wait = &sync.WaitGroup{}
	}
	return e
}

// Start takes the pool's servers into use: what the new configuration no longer asks
// about is forgotten, names are resolved and checks are made until ctx ends. It is
// called when the pool's snapshot is published.
func (p *Pool) Start(ctx context.Context, e Env) {
	e = e.Filled()
	for _, s := range p.servers {
		s.change(func(h *Health) { h.Forget(p.Config.Passive, p.Config.Check) })
		if s.host != "" {
			e.Wait.Go(func() { s.follow(ctx, e) })
		}
		if p.Config.Check != nil {
			c := newChecker(p, s, e)
			e.Wait.Go(func() { c.run(ctx) })
		}
	}
}

// Retire marks the servers of p that are not in next as gone. next may be nil.
func (p *Pool) Retire(next *Pool) {
	kept := map[*Server]bool{}
	if next != nil {
		for _, s := range next.servers {
			kept[s] = true
		}
	}
	for _, s := range p.servers {
		if !kept[s] {
			s.SetGone(true)
		}
	}
}
