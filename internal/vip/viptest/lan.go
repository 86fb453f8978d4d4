// Package viptest is a LAN in memory: links that hold addresses with lifetimes, hosts
// with ARP tables, cables that can be cut. It takes its time from the caller, so that
// tests run it in the virtual time of testing/synctest.
package viptest

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/vip"
)

// MAC is a hardware address on the LAN.
type MAC = [6]byte

// locktime is for how long Linux keeps an ARP entry against a second change.
const locktime = time.Second

// A LAN is one broadcast domain. Frames arrive at once, but are told to a link's
// watcher by the watcher's own goroutine.
type LAN struct {
	now func() clock.Instant

	mu    sync.Mutex // guards all that is plugged in
	links []*Link
	hosts []*Host
}

// New returns an empty LAN. now is the clock by which lifetimes end; inside a synctest
// bubble, SinceNow gives one.
func New(now func() clock.Instant) *LAN { return &LAN{now: now} }

// SinceNow returns a clock that begins an hour after boot and follows time.Now, which
// inside a synctest bubble is virtual.
func SinceNow() func() clock.Instant {
	start := time.Now()
	return func() clock.Instant { return clock.Instant(time.Hour + time.Since(start)) }
}

// Link plugs a node's interface into the LAN. It satisfies vip.Link. own are the node's
// addresses of its own there, which last.
func (l *LAN) Link(name string, mac MAC, own ...netip.Prefix) *Link {
	k := &Link{
		lan: l, name: name, mac: mac, up: true,
		onLink: map[netip.Addr]clock.Instant{}, onLo: map[netip.Addr]clock.Instant{},
	}
	k.own = append(k.own, own...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links = append(l.links, k)
	return k
}

// Host plugs a host into the LAN that is no node: a client, a server, a gateway.
func (l *LAN) Host(addr netip.Addr, mac MAC) *Host {
	h := &Host{lan: l, addr: addr, mac: mac, table: map[netip.Addr]entry{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts = append(l.hosts, h)
	return h
}

// WhoHas returns the MACs of all that answer for the address at this instant, as an
// observer sees it who hears every frame on the LAN: two of them are a fault.
func (l *LAN) WhoHas(a netip.Addr) []MAC {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answering(a)
}

// answering is WhoHas with the mutex held.
func (l *LAN) answering(a netip.Addr) []MAC {
	var macs []MAC
	for _, k := range l.links {
		if k.up && !k.deaf && !k.mute && k.answers(a) {
			macs = append(macs, k.mac)
		}
	}
	for _, h := range l.hosts {
		if !h.off && (h.addr == a || slices.Contains(h.also, a)) {
			macs = append(macs, h.mac)
		}
	}
	return macs
}

// flood delivers a frame to all but its sender.
func (l *LAN) flood(from MAC, claim netip.Addr) {
	for _, k := range l.links {
		if k.mac != from {
			k.receive(vip.Heard{From: from, Claim: claim})
		}
	}
	if !claim.IsValid() {
		return
	}
	for _, h := range l.hosts {
		if h.mac != from && !h.off {
			h.learn(claim, from)
		}
	}
}

// A Host has an address and a table of who has which.
type Host struct {
	lan   *LAN
	addr  netip.Addr
	mac   MAC
	also  []netip.Addr // addresses that it claims besides its own
	off   bool
	table map[netip.Addr]entry
}

type entry struct {
	mac     MAC
	updated clock.Instant
}

// MAC returns whom the host sends to when it sends to the address; ok is false if it
// knows nobody and nobody answers. Like a kernel it asks only when it has no entry.
func (h *Host) MAC(a netip.Addr) (mac MAC, ok bool) {
	l := h.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, known := h.table[a]; known {
		return e.mac, true
	}
	macs := l.answering(a)
	if h.off || len(macs) == 0 {
		return MAC{}, false
	}
	h.table[a] = entry{macs[0], l.now()}
	return macs[0], true
}

// Claim makes the host say that it has the address, and answer for it from then on.
func (h *Host) Claim(a netip.Addr) {
	l := h.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(h.also, a) {
		h.also = append(h.also, a)
	}
	l.flood(h.mac, a)
}

// Speak makes the host send a frame that is heard and claims only its own address.
func (h *Host) Speak() {
	l := h.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flood(h.mac, h.addr)
}

// Off switches the host off, or on again.
func (h *Host) Off(off bool) {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	h.off = off
}

// learn changes an entry that exists, unless it was changed within the locktime.
func (h *Host) learn(a netip.Addr, mac MAC) {
	e, known := h.table[a]
	now := h.lan.now()
	if !known || e.mac == mac || now.Sub(e.updated) < locktime {
		return
	}
	h.table[a] = entry{mac, now}
}
