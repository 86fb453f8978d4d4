package proxy

import (
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"

	"proxyd/internal/dataplane"
)

// conns counts the open client connections of this node, in all and by address. It
// outlives reloads. An address is in the table only while it has a connection, so the
// table is no larger than limits.conns.
type conns struct {
	open   atomic.Int64
	seed   maphash.Seed
	shards [64]connShard
}

type connShard struct {
	mu    sync.Mutex
	count map[netip.Addr]int
	_     [40]byte // a cache line of its own
}

func newConns() *conns {
	c := &conns{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].count = make(map[netip.Addr]int)
	}
	return c
}

// whose returns what the connections of a client are counted by: its IPv4 address, or
// the /64 that one IPv6 customer has (E9).
func whose(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

func (c *conns) shard(a netip.Addr) *connShard {
	return &c.shards[maphash.Comparable(c.seed, a)%uint64(len(c.shards))]
}

// enter counts a connection if its address has fewer than most; 0 is no limit.
func (c *conns) enter(a netip.Addr, most int) bool {
	a = whose(a)
	s := c.shard(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.count[a]
	if most > 0 && n >= most {
		return false
	}
	s.count[a] = n + 1
	return true
}

func (c *conns) leave(a netip.Addr) {
	a = whose(a)
	s := c.shard(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.count[a]; n > 1 {
		s.count[a] = n - 1
	} else {
		delete(s.count, a)
	}
}

// of returns how many connections are counted as those of an address.
func (c *conns) of(a netip.Addr) int {
	a = whose(a)
	s := c.shard(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[a]
}

// Admit holds limits.conns and limits.conns_per_ip, and turns away who has flooded. A trusted
// proxy speaks for many clients and is exempt from the last two.
func (p *Plane) Admit(l *dataplane.Listener, client netip.AddrPort) bool {
	s := p.current.Load()
	limits := &s.conf.Limits
	counters := p.listeners.at(l.Index)
	if n := p.conns.open.Add(1); limits.Conns > 0 && n > int64(limits.Conns) && !p.mayBeProbe(l, client.Addr().Unmap()) {
		p.conns.open.Add(-1)
		counters.refused.Add(1)
		return false
	}
	if p.floods.some.Load() > 0 && p.floods.barred(client.Addr(), p.opt.Now()) && !p.mayBeProbe(l, client.Addr().Unmap()) && !s.trusts(client.Addr().Unmap()) {
		p.conns.open.Add(-1)
		counters.flooders.Add(1)
		return false
	}
	most := limits.ConnsPerIP
	if most > 0 && (s.trusts(client.Addr().Unmap()) || p.mayBeProbe(l, client.Addr().Unmap())) {
		most = 0
	}
	if !p.conns.enter(client.Addr(), most) {
		p.conns.open.Add(-1)
		counters.refused.Add(1)
		return false
	}
	if l.Datagrams {
		counters.quicAccepted.Add(1)
		counters.quicOpen.Add(1)
		return true
	}
	counters.accepted.Add(1)
	counters.open.Add(1)
	return true
}

// Leave gives the connection's place back and counts why it ended.
func (p *Plane) Leave(l *dataplane.Listener, client netip.AddrPort, why dataplane.Closing) {
	p.conns.leave(client.Addr())
	p.conns.open.Add(-1)
	counters := p.listeners.at(l.Index)
	if l.Datagrams {
		counters.quicOpen.Add(-1)
	} else {
		counters.open.Add(-1)
	}
	counters.closed[why].Add(1)
	if why == dataplane.ClosedFlood && !p.current.Load().trusts(client.Addr().Unmap()) {
		if say, others := p.floods.note(client.Addr(), p.opt.Now()); say {
			p.opt.Logger.Warn("an address floods, and is turned away for a while", "listener", l.Name, "client", whose(client.Addr()), "others", others)
		}
	}
}

// HTTP2 counts the connections of HTTP/2 among those that were admitted.
func (p *Plane) HTTP2(l *dataplane.Listener, begins bool) {
	counters := p.listeners.at(l.Index)
	if begins {
		counters.h2Begun.Add(1)
		counters.h2Open.Add(1)
	} else {
		counters.h2Open.Add(-1)
	}
}

// Glitch counts what a client of HTTP/2 may do a few times.
func (p *Plane) Glitch(l *dataplane.Listener, kind dataplane.Glitch) {
	p.listeners.at(l.Index).glitches[kind].Add(1)
}

// Refused counts and logs what never became a request.
func (p *Plane) Refused(l *dataplane.Listener, client netip.AddrPort, err error) {
	var m *dataplane.Malformed
	if !errors.As(err, &m) {
		return
	}
	p.countMalformed(l, err)
	p.access.Refused(l, client, m, p.opt.Now())
}
