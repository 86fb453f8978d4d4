package beat

import (
	"net/netip"
	"sync"
)

// How many lifelines can be open at a time: from the voters' addresses, and from all others
// together, which may be voters behind a translation of addresses and must not crowd out
// the rest; and how many of either from one address, so that one host cannot take all.
const (
	maxLifelines        = 256
	maxLifelinesOf      = 64
	maxOtherLifelines   = 32
	maxOtherLifelinesOf = 4
)

// places counts the lifelines that others have dialled.
type places struct {
	mu             sync.Mutex
	voters, others int
	of             map[netip.Addr]int // by address, those that have any
}

// take takes a place for a connection from an address, a voter's or not, and reports whether
// there was one.
func (s *places) take(a netip.Addr, voter bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, most, mostOf := &s.others, maxOtherLifelines, maxOtherLifelinesOf
	if voter {
		all, most, mostOf = &s.voters, maxLifelines, maxLifelinesOf
	}
	if *all >= most || s.of[a] >= mostOf {
		return false
	}
	if s.of == nil {
		s.of = map[netip.Addr]int{}
	}
	*all++
	s.of[a]++
	return true
}

// leave gives a place back.
func (s *places) leave(a netip.Addr, voter bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if voter {
		s.voters--
	} else {
		s.others--
	}
	if s.of[a]--; s.of[a] == 0 {
		delete(s.of, a)
	}
}
