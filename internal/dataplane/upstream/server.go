package upstream

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
)

// A Server is one upstream with its health and its counters. It outlives reloads: the
// pool of a new snapshot adopts the servers of the old one by name.
type Server struct {
	dataplane.Server

	// Requests counts attempts by the class of their answer: index 1 to 5, 0 for those
	// that got none.
	Requests  [6]atomic.Uint64
	Failures  atomic.Uint64    // attempts that counted against the server
	Response  Histogram        // from the request's head sent to the answer's head read
	Connect   Histogram        // how long connections took that came to stand
	Checks    [2]atomic.Uint64 // by result: CheckFailed, CheckPassed
	CheckTime Histogram        // how long they took
	Ejections [4]atomic.Uint64 // by what left the server out: LeftOut, Ejected, Opened
	Shakes    [3]atomic.Uint64 // TLS handshakes by result: ShakeFull, ShakeResumed, ShakeFailed

	host string // to resolve; "" if the name is an address
	port uint16

	unfit   atomic.Bool            // has no address, is withheld, or !health.Clean(): the hot path reads this alone
	changes *atomic.Uint64         // of its pool: counted up when who may be chosen has changed
	seat    atomic.Pointer[seat]   // where the number of its exchanges is kept in order; nil: nowhere
	latency peak                   // of its answers, learnt while balance = "ewma"
	fault   atomic.Pointer[string] // why the last TLS handshake failed; nil if it went well
	sealed  *Secure                // what its TLS is made of; nil: in clear. Changed under the mutex of the Watch
	fresh   atomic.Bool            // it has come up, or is new, since it was last lined up
	since   atomic.Int64           // when that was, nanoseconds since 1970; 0: it has always been up

	mu     sync.Mutex // guards what follows
	health Health
	mode   Mode
	addrs  []netip.Addr // what the name resolved to last, in order
}

// Results of a check, the index of Server.Checks.
const (
	CheckFailed = iota
	CheckPassed
)

// newServer makes a server that counts in changes when who may be chosen has changed.
func newServer(pool, name string, changes *atomic.Uint64) (*Server, error) {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, fmt.Errorf("server %q: want host:port", name)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return nil, fmt.Errorf("server %q: want host:port", name)
	}
	s := &Server{port: uint16(n), changes: changes}
	s.Pool, s.Name = pool, name
	if a, err := netip.ParseAddr(host); err == nil {
		s.SetAddr(netip.AddrPortFrom(a.Unmap(), s.port))
	} else {
		s.host = host
		s.unfit.Store(true)
	}
	return s, nil
}

// fit reports whether the server may be given an exchange now.
func (s *Server) fit(now time.Time) bool {
	ok, _ := s.standing(now)
	return ok
}

// standing reports whether the server may be given an exchange now, and if not, when
// that may change by itself; the zero time is never.
func (s *Server) standing(now time.Time) (fit bool, next time.Time) {
	if !s.unfit.Load() {
		return true, time.Time{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.Addr().IsValid() || s.mode != Serve:
		return false, time.Time{}
	case s.health.Fit(now):
		return true, time.Time{}
	}
	return false, s.health.Due()
}

// barred reports whether the server may not be given an exchange even when no server is
// up: there is nowhere to send it, an operator or its breaker forbids it.
func (s *Server) barred(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bars(now)
}

// bars is barred for who holds mu.
func (s *Server) bars(now time.Time) bool {
	return !s.Addr().IsValid() || s.mode != Serve || s.health.Barred(now)
}

// claim asks for leave to give an unfit server an exchange: after its time out it gets
// one, as a trial. anyone is for when no server is up.
func (s *Server) claim(now time.Time, anyone bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars(now) || !anyone && !s.health.Fit(now) {
		return false
	}
	s.health.Take(now)
	s.judge()
	return true
}

// claimKept is claim for a client that the server has already.
func (s *Server) claimKept(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.Addr().IsValid() || s.mode == Disable || !s.health.Fit(now) {
		return false
	}
	s.health.Take(now)
	s.judge()
	return true
}

// change lets do alter the server's health.
func (s *Server) change(do func(*Health)) {
	s.mu.Lock()
	do(&s.health)
	s.judge()
	s.mu.Unlock()
}

// State returns up, down, open, half-open, ejected, drain or maint, and why it is not
// up. What an operator wants goes before what is found out.
func (s *Server) State() (state, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state, why = s.health.State(time.Now()); !s.Addr().IsValid() {
		state, why = "down", "its name does not resolve"
	}
	if fault := s.fault.Load(); fault != nil && why == "connect" {
		why = "TLS: " + *fault
	}
	if s.mode == Serve {
		return state, why
	}
	if state != "up" {
		return s.mode.String(), "also " + state + ": " + why
	}
	return s.mode.String(), ""
}

// Down says why the checks of this node find the server down, or that it has no address,
// whatever operators want of it; "" if neither.
func (s *Server) Down() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.Addr().IsValid():
		return "its name does not resolve"
	case s.health.down:
		return cmp.Or(s.health.found, "down")
	}
	return ""
}

// resolved notes what the server's name resolves to now and reports whether that
// changes where it is dialled. An address in use that is still among them stays.
func (s *Server) resolved(addrs []netip.Addr) bool {
	if len(addrs) == 0 {
		return false
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs = slices.Compact(addrs)
	if slices.Contains(s.addrs, s.Addr().Addr()) {
		return false
	}
	s.SetAddr(netip.AddrPortFrom(s.addrs[0], s.port))
	s.judge()
	return true
}

// rotate moves on to the next address of a name that has several, after the one in use
// could not be reached.
func (s *Server) rotate() {
	if s.host == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.addrs, s.Addr().Addr()); i >= 0 && len(s.addrs) > 1 {
		s.SetAddr(netip.AddrPortFrom(s.addrs[(i+1)%len(s.addrs)], s.port))
	}
}
