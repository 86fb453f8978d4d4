package beat

import (
	"fmt"
	"net/netip"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
)

// foreign counts datagrams from a peer's address that cannot be understood: no key of ours
// opens them, or they are of a version that is not spoken here.
type foreign struct {
	n       int
	since   clock.Instant // of the first
	last    clock.Instant
	told    clock.Instant
	version uint8 // that they are of; 0: it is the key
}

// foreignAfter is how many make it certain that they are no accident.
const foreignAfter = 5

// strange notes a datagram that says it is of p and cannot be opened. A peer that has
// another key beats like any other: it is told to the loop that its address speaks with
// another key, now and again for as long as that lasts.
func (m *Mesh) strange(p *peer, now clock.Instant, on int, from netip.AddrPort) {
	m.alien(p, now, on, from, 0, "it speaks with another key, or of another cluster")
}

// unreadable notes a datagram of a version that is not spoken here. All that can be known of
// who sent it is its address.
func (m *Mesh) unreadable(now clock.Instant, h head, on int, from netip.AddrPort) {
	for _, p := range m.peers {
		if p != nil {
			m.alien(p, now, on, from, h.version, fmt.Sprintf("it speaks version %d of what nodes send each other, and this node %v: their releases are too far apart", h.version, m.Wire))
		}
	}
}

// alien notes a datagram that may be p's, and what is the matter with it.
func (m *Mesh) alien(p *peer, now clock.Instant, on int, from netip.AddrPort, version uint8, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on == len(m.Paths) || from.Addr() != p.ways[on].to.Addr() {
		return // anybody can say that
	}
	f := &p.foreign
	if now.Sub(f.last) > 6*m.Heartbeat || f.version != version {
		*f = foreign{since: now, version: version}
	}
	f.n++
	f.last = now
	// While p itself is heard between them they are not p's: somebody bears its address.
	if f.n >= foreignAfter && now.Sub(f.told) > 2*m.Heartbeat && now.Sub(p.direct) > m.gap() &&
		m.tell(ha.MeshEvent{Kind: ha.Foreign, From: p.id, At: now, Info: what}) {
		f.told = now
	}
}

// speaksForeign reports whether p's address has lately spoken, and was not understood.
func (m *Mesh) speaksForeign(p *peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.foreign.n >= foreignAfter && m.Now().Sub(p.foreign.last) < 6*m.Heartbeat
}
