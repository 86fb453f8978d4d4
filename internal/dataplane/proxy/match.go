package proxy

import (
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/route"
)

// Match gives x the one snapshot that it will see, and its route.
func (p *Plane) Match(x *dataplane.Exchange) {
	p.choose(x, p.current.Load()).counters.inflight.Add(1)
}

// choose gives x a snapshot and its route there.
func (p *Plane) choose(x *dataplane.Exchange, s *snapshot) *compiledRoute {
	var r *compiledRoute
	from := s.sender(x)
	if len(x.Request.Path) == 1 && x.Request.Path[0] == '*' && p.isProbe(x) {
		r = s.probe()
	} else if p.challenged(x) && s.challenge != nil {
		r = s.challenge
	} else if r = s.toHTTPS[x.Listener.Name]; r != nil && !p.uncertified(x) { // before any route
	} else if i := s.table.Find(x.Listener.Name, &x.Request, from); i == route.None {
		r = s.unmatched(x)
	} else if r = s.routes[i]; r.split != nil {
		r = r.split.choose(from.Client)
	}
	x.Snapshot, x.Config, x.Route = s, s.generation, &r.Route
	return r
}

// sender finds out who sent x, if any route asks.
func (s *snapshot) sender(x *dataplane.Exchange) route.From {
	if !s.bySender {
		return route.From{}
	}
	s.origin(x)
	return route.From{Client: x.Mark.ClientIP, Trusted: s.trusts(x.Client.Addr().Unmap())}
}
