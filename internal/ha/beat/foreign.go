package beat

import (
	"net/netip"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
)

// foreign counts datagrams from a peer's address that no key of ours opens.
type foreign struct {
	n     int
	since clock.Instant // of the first
	last  clock.Instant
	told  clock.Instant
}

// foreignAfter is how many make it certain that they are no accident.
const foreignAfter = 5

// strange notes a datagram that says it is of p and cannot be opened. A peer that has
// another key beats like any other: it is told to the loop that its address speaks with
// another key, now and again for as long as that lasts.
func (m *Mesh) strange(p *peer, now clock.Instant, on int, from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on == len(m.Paths) || from.Addr() != p.ways[on].to.Addr() {
		return // anybody can say that
	}
	f := &p.foreign
	if now.Sub(f.last) > 6*m.Heartbeat {
		*f = foreign{since: now}
	}
	f.n++
	f.last = now
	if f.n >= foreignAfter && now.Sub(f.told) > 2*m.Heartbeat &&
		m.tell(ha.MeshEvent{Kind: ha.Foreign, From: p.id, At: now, Info: "it speaks with another key, or of another cluster"}) {
		f.told = now
	}
}

// speaksForeign reports whether p's address has lately spoken with another key.
func (m *Mesh) speaksForeign(p *peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.foreign.n >= foreignAfter && m.Now().Sub(p.foreign.last) < 6*m.Heartbeat
}
