package viptest

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/vip"
	"proxyd/internal/vip/fence"
)

// A Link is a node's interface on a LAN.
type Link struct {
	lan  *LAN
	name string
	mac  MAC
	own  []netip.Prefix

	// What follows is guarded by lan.mu.
	up         bool
	deaf, mute bool
	onLink     map[netip.Addr]clock.Instant // until when the address stays
	onLo       map[netip.Addr]clock.Instant
	gates      map[netip.Addr]fence.Gate // nil: no fence
	fault      error
	sendOn     map[netip.Addr]vip.Seat
	watcher    chan vip.Heard
	follower   chan vip.Change
	count      Count
}

// Count is how often things were done to a link.
type Count struct{ Add, Remove, Park, Unpark, Announce, Ask int }

var _ vip.Link = (*Link)(nil)

// Name returns the interface's name.
func (k *Link) Name() string { return k.name }

// Hardware returns the interface's hardware address.
func (k *Link) Hardware() MAC { return k.mac }

// Add adds p or prolongs it. Lifetimes count in whole seconds, as the kernel's do.
func (k *Link) Add(p netip.Prefix, life time.Duration) error {
	return k.do(func() error {
		k.count.Add++
		k.onLink[p.Addr()] = k.end(life)
		k.expire(life)
		return nil
	})
}

// Remove removes p.
func (k *Link) Remove(p netip.Prefix) error {
	return k.do(func() error {
		k.count.Remove++
		k.remove(p.Addr())
		return nil
	})
}

// Park puts p on loopback.
func (k *Link) Park(p netip.Prefix, life time.Duration) error {
	return k.do(func() error {
		k.count.Park++
		k.onLo[p.Addr()] = k.end(life)
		return nil
	})
}

// Unpark takes p from loopback.
func (k *Link) Unpark(p netip.Prefix) error {
	return k.do(func() error {
		k.count.Unpark++
		delete(k.onLo, p.Addr())
		return nil
	})
}

// Gate tells the fence, if there is one.
func (k *Link) Gate(a netip.Addr, g fence.Gate) error {
	return k.do(func() error {
		if k.gates != nil {
			k.gates[a] = g
		}
		return nil
	})
}

// PutUpFence puts a fence up that is shut for every virtual address.
func (k *Link) PutUpFence() { k.set(func() { k.gates = map[netip.Addr]fence.Gate{} }) }

// passes reports whether the fence lets a packet to a through.
func (k *Link) passes(a netip.Addr) bool {
	return k.gates == nil || k.lan.now() < max(k.gates[a].Speak, k.gates[a].Drain)
}

// Addrs returns the addresses of the interface.
func (k *Link) Addrs() (all []netip.Prefix, err error) {
	err = k.do(func() error {
		all = append(all, k.own...)
		for a, end := range k.onLink {
			if k.lan.now() < end {
				all = append(all, vip.Host(a))
			}
		}
		return nil
	})
	return all, err
}

// Neighbours returns the LAN's hosts, whether they are on or not.
func (k *Link) Neighbours() (all []netip.Addr, err error) {
	err = k.do(func() error {
		for _, h := range k.lan.hosts {
			all = append(all, h.addr)
		}
		return nil
	})
	return all, err
}

// Announce tells everyone on the LAN that this link has a.
func (k *Link) Announce(a netip.Addr) error {
	return k.send(func() {
		k.count.Announce++
		k.lan.flood(k.mac, a)
	})
}

// Ask asks everyone on the LAN for a. Each that has it answers.
func (k *Link) Ask(a netip.Addr) error {
	return k.send(func() {
		k.count.Ask++
		k.lan.flood(k.mac, netip.Addr{})
		for _, mac := range k.lan.answering(a) {
			if mac != k.mac {
				k.receive(vip.Heard{From: mac, Claim: a})
			}
		}
	})
}

// Watch tells of each frame until ctx ends. Of frames that nobody takes, all beyond 256
// are lost.
func (k *Link) Watch(ctx context.Context, heard func(vip.Heard)) error {
	frames := make(chan vip.Heard, 256)
	k.set(func() { k.watcher = frames })
	defer k.set(func() { k.watcher = nil })
	for {
		select {
		case h := <-frames:
			heard(h)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Follow tells of each change of the interface until ctx ends.
func (k *Link) Follow(ctx context.Context, changed func(vip.Change)) error {
	changes := make(chan vip.Change, 256)
	k.set(func() { k.follower = changes })
	defer k.set(func() { k.follower = nil })
	for {
		select {
		case c := <-changes:
			changed(c)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Up reports whether the link has carrier.
func (k *Link) Up() (up bool, err error) {
	k.set(func() { up = k.up })
	return up, nil
}

// Seat returns where the link is.
func (k *Link) Seat(a netip.Addr) (vip.Seat, error) {
	s := vip.Seat{MAC: k.mac}
	for _, p := range k.own {
		if p.Addr().Is4() == a.Is4() {
			s.Addr = p.Addr()
		}
	}
	return s, nil
}

// SendOn remembers whom packets for a are sent on to.
func (k *Link) SendOn(a netip.Addr, to vip.Seat, _ clock.Instant) error {
	return k.do(func() error {
		if k.sendOn == nil {
			k.sendOn = map[netip.Addr]vip.Seat{}
		}
		k.sendOn[a] = to
		return nil
	})
}

// SentOn returns 0: the LAN has no packets.
func (k *Link) SentOn(netip.Addr) (uint64, error) { return 0, nil }

// SendsOn returns whom packets for a are sent on to.
func (k *Link) SendsOn(a netip.Addr) (to vip.Seat) {
	k.set(func() { to = k.sendOn[a] })
	return to
}

// Cut cuts the cable, with loss of carrier, or mends it.
func (k *Link) Cut(cut bool) {
	k.set(func() {
		k.up = !cut
		kind := vip.LinkUp
		if cut {
			kind = vip.LinkDown
		}
		k.change(vip.Change{Kind: kind})
	})
}

// Lose loses frames without a loss of carrier, by direction: a broken switch.
func (k *Link) Lose(in, out bool) { k.set(func() { k.deaf, k.mute = in, out }) }

// Flush removes every virtual address from the interface, as an operator's hand does.
func (k *Link) Flush() {
	k.set(func() {
		for a := range k.onLink {
			k.remove(a)
		}
	})
}

// Fail makes everything that is asked of the link end in err, until called with nil.
func (k *Link) Fail(err error) { k.set(func() { k.fault = err }) }

// Accepts reports whether the node takes packets to a as its own, silent or not.
func (k *Link) Accepts(a netip.Addr) (accepts bool) {
	k.set(func() { accepts = k.answers(a) || k.lan.now() < k.onLo[a] && k.passes(a) })
	return accepts
}

// Count returns how often things were done.
func (k *Link) Count() (c Count) {
	k.set(func() { c = k.count })
	return c
}

func (k *Link) set(f func()) {
	k.lan.mu.Lock()
	defer k.lan.mu.Unlock()
	f()
}

func (k *Link) do(f func() error) (err error) {
	k.set(func() {
		if err = k.fault; err == nil {
			err = f()
		}
	})
	return err
}

func (k *Link) send(f func()) error {
	return k.do(func() error {
		if !k.up {
			return fmt.Errorf("send on %s: network is down", k.name)
		}
		if !k.mute {
			f()
		}
		return nil
	})
}

// answers reports whether the link answers for a, were it asked.
func (k *Link) answers(a netip.Addr) bool {
	for _, p := range k.own {
		if p.Addr() == a {
			return true
		}
	}
	silent := k.gates != nil && k.lan.now() >= k.gates[a].Speak
	return k.lan.now() < k.onLink[a] && !silent
}

func (k *Link) end(life time.Duration) clock.Instant {
	return k.lan.now().Add((life + time.Second - 1).Truncate(time.Second))
}

// expire removes what has outlived its time, when the lifetime that begins now ends.
func (k *Link) expire(life time.Duration) {
	time.AfterFunc(k.end(life).Sub(k.lan.now()), func() {
		k.set(func() {
			for a, end := range k.onLink {
				if k.lan.now() >= end {
					k.remove(a)
				}
			}
		})
	})
}

func (k *Link) remove(a netip.Addr) {
	if _, there := k.onLink[a]; there {
		delete(k.onLink, a)
		k.change(vip.Change{Kind: vip.Removed, Addr: a})
	}
}

func (k *Link) receive(h vip.Heard) {
	if !k.up || k.deaf || k.watcher == nil {
		return
	}
	select {
	case k.watcher <- h:
	default:
	}
}

func (k *Link) change(c vip.Change) {
	if k.follower == nil {
		return
	}
	select {
	case k.follower <- c:
	default:
	}
}
