package upstream

// A Mode is whether an operator lets a server be given exchanges. It outlives reloads
// with the server and stands above its health.
type Mode uint32

const (
	Serve   Mode = iota // as its health allows
	Drain               // nothing new; clients that a cookie keeps at it stay, and what runs ends
	Disable             // nothing at all; what runs ends, and checks go on
)

// String is the word of the mode in status, metrics and the admin API.
func (m Mode) String() string {
	switch m {
	case Drain:
		return "drain"
	case Disable:
		return "maint"
	}
	return "serve"
}

// ParseMode returns the mode of a word.
func ParseMode(word string) (m Mode, ok bool) {
	for _, m := range []Mode{Serve, Drain, Disable} {
		if m.String() == word {
			return m, true
		}
	}
	return Serve, false
}

// Steer sets the server's mode.
func (s *Server) Steer(m Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = m
	s.judge()
}

// judge notes whether anything stands against the server, and has its pool line up again
// where that may make a difference. s.mu is held.
func (s *Server) judge() {
	unfit := !s.Addr().IsValid() || !s.health.Clean() || s.mode != Serve
	was := s.unfit.Swap(unfit)
	if was && !unfit {
		s.fresh.Store(true)
		s.latency.reset()
	}
	if was || unfit {
		s.changes.Add(1)
	}
}
