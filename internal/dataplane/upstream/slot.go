package upstream

import (
	"slices"
	"sync/atomic"
)

// A slot is a server's place in one pool.
type slot struct {
	*Server
	given  int32 // weight by the configuration, in units
	limit  int64 // exchanges at once; 0: any number
	backup bool
	code   [codeBytes]byte // in cookies

	weight atomic.Int32 // in force, in units; 0: not chosen. Written by who lines up
	share  atomic.Int32 // of given that weight is, in hundredths
}

// take takes a place on the server for an exchange and reports whether it got one.
func (s *slot) take(a Ask) bool {
	if s.weight.Load() == 0 || slices.Contains(a.Tried, &s.Server.Server) || s.full() {
		return false
	}
	if s.unfit.Load() && !s.claim(a.Now, a.anyone) {
		return false
	}
	return s.enter()
}

// keep is take for a client that the server has already: drained or not, and whatever
// it weighs.
func (s *slot) keep(a Ask) bool {
	if slices.Contains(a.Tried, &s.Server.Server) || s.full() || s.unfit.Load() && !s.claimKept(a.Now) {
		return false
	}
	return s.enter()
}

// full reports whether the server has max_conns.
func (s *slot) full() bool { return s.limit > 0 && s.Active.Load() >= s.limit }

// enter counts an exchange if the server's limit allows one more.
func (s *slot) enter() bool {
	if s.limit == 0 {
		s.Active.Add(1)
		return true
	}
	for {
		n := s.Active.Load()
		if n >= s.limit {
			return false
		}
		if s.Active.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// busier reports whether s has more to do for its weight than other.
func (s *slot) busier(other *slot) bool {
	return s.Active.Load()*int64(other.weight.Load()) > other.Active.Load()*int64(s.weight.Load())
}
