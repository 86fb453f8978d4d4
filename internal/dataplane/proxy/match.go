package proxy

import (
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/route"
)

// Match gives x the one snapshot that it will see, and its route.
func (p *Plane) Match(x *dataplane.Exchange) {
	s := p.current.Load()
	r := s.unmatched()
	if len(x.Request.Path) == 1 && x.Request.Path[0] == '*' && p.isProbe(x) {
		r = s.probe()
	} else if i := s.table.Find(x.Listener.Name, &x.Request, s.sender(x)); i != route.None {
		r = s.routes[i]
	}
	x.Snapshot, x.Config, x.Route = s, s.generation, &r.Route
	r.counters.inflight.Add(1)
}

// sender finds out who sent x, if any route asks.
func (s *snapshot) sender(x *dataplane.Exchange) route.From {
	if !s.table.BySender() {
		return route.From{}
	}
	s.origin(x)
	return route.From{Client: x.Mark.ClientIP, Trusted: s.trusts(x.Client.Addr().Unmap())}
}
