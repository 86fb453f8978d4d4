package proxy

import (
	"sync/atomic"

	"proxyd/internal/dataplane"
)

// listenerCounters are of all addresses of one listener name. They stay for the life of
// the process, as connections of a removed listener may.
type listenerCounters struct {
	name      string
	open      atomic.Int64
	accepted  atomic.Uint64
	refused   atomic.Uint64 // by limits.conns and limits.conns_per_ip
	flooders  atomic.Uint64 // turned away, as their address has flooded
	closed    [dataplane.Closings]atomic.Uint64
	malformed [len(malformedReasons)]atomic.Uint64
	glitches  [dataplane.Glitches]atomic.Uint64
	in, out   atomic.Uint64 // bytes

	h2Open       atomic.Int64 // connections of HTTP/2, which are in open and accepted, too
	h2Begun      atomic.Uint64
	shown        atomic.Uint64 // connections that did not speak HTTP/2, as they were collected last
	quicOpen     atomic.Int64  // connections of HTTP/3, which are not in open and accepted
	quicAccepted atomic.Uint64
	shaken       shakeCounters
}

// listenerSet gives each listener name an index for good.
type listenerSet struct {
	all atomic.Pointer[[]*listenerCounters] // replaced under Plane.mu, read by anyone
}

func (s *listenerSet) list() []*listenerCounters {
	if p := s.all.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *listenerSet) at(index int) *listenerCounters { return (*s.all.Load())[index] }

// index returns the place of name, made if need be.
func (s *listenerSet) index(name string) int {
	have := s.list()
	for i, c := range have {
		if c.name == name {
			return i
		}
	}
	more := append(append([]*listenerCounters(nil), have...), &listenerCounters{name: name})
	s.all.Store(&more)
	return len(have)
}
