package upstream

import (
	"slices"
	"sync/atomic"
)

// A slot is a server's place in one pool.
type slot struct {
	*Server
	given  int32 // weight by the configuration, in units
	backup bool

	weight atomic.Int32 // in force, in units; 0: not chosen. Written by who lines up
	share  atomic.Int32 // of given that weight is, in hundredths
}

// take takes a place on the server for an exchange and reports whether it got one.
func (s *slot) take(a Ask) bool {
	if s.weight.Load() == 0 || slices.Contains(a.Tried, &s.Server.Server) {
		return false
	}
	if s.unfit.Load() && !s.claim(a.Now, a.anyone) {
		return false
	}
	s.Active.Add(1)
	return true
}

// busier reports whether s has more to do for its weight than other.
func (s *slot) busier(other *slot) bool {
	return s.Active.Load()*int64(other.weight.Load()) > other.Active.Load()*int64(s.weight.Load())
}
