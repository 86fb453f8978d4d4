package upstream

import (
	"sync"
	"time"
)

// outliers keeps what a pool with eject must know of all its servers. It outlives
// reloads with the pool's name.
type outliers struct {
	mu    sync.Mutex // guards what follows, and that no two servers are left out at once
	total tally      // of all servers, as at
	at    time.Time
}

// totalAge is how old the tally of a pool may be by which a server is judged.
const totalAge = 100 * time.Millisecond

// eject decides whether a server is left out after a failure that f says makes that
// possible: not if more than the share eject.max of the pool's servers would be out, for
// whatever reason, and not for a share of failures that the others have too.
func (p *Pool) eject(s *Server, now time.Time, f Failure) Failure {
	o := &p.outliers
	o.mu.Lock()
	defer o.mu.Unlock()
	if f == Frequent && !p.standsOut(s, now) || !p.room(s) {
		return Noted
	}
	s.change(func(h *Health) { f = h.Eject(now, p.Config, f) })
	return f
}

// room reports whether one more server may be left out. Of two or more servers one
// always may: a share that rounds down to none would be no protection.
func (p *Pool) room(s *Server) bool {
	n := len(p.servers)
	most := int(float64(n) * float64(p.Config.Eject.Max))
	if n >= 2 {
		most = max(most, 1)
	}
	out := 0
	for _, other := range p.servers {
		if other != s && other.unfit.Load() {
			out++
		}
	}
	return out < most
}

// standsOut reports whether s fails much more often than the others together, of which
// enough must be known.
func (p *Pool) standsOut(s *Server, now time.Time) bool {
	o := &p.outliers
	if age := now.Sub(o.at); age < 0 || age >= totalAge {
		o.total, o.at = tally{}, now
		for _, other := range p.servers {
			t := other.tally(now)
			o.total.attempts += t.attempts
			o.total.failures += t.failures
		}
	}
	own := s.tally(now)
	rest := tally{max(o.total.attempts-own.attempts, 0), max(o.total.failures-own.failures, 0)}
	return rest.attempts >= leastAttempts && own.share() >= outlierFactor*rest.share()
}

// tally returns what the last ten seconds' attempts at the server came to.
func (s *Server) tally(now time.Time) tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health.recent.sum(now)
}
