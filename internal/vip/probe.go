package vip

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"proxyd/internal/clock"
)

// asks is how often a probe asks, evenly spaced: one frame may be lost, or come while
// the other host is being scheduled.
const asks = 3

// maxWitnesses bounds how many neighbours one probe asks.
const maxWitnesses = 8

// Probe asks the network whether another host answers for the address, and returns at
// once when one does. heard says whether any ARP or ND frame of another host was heard
// since the instant. If none came by itself, Probe asks the neighbours that the link
// knows, the peers excepted; where there is none to ask, heard says that the link is up,
// because then silence proves nothing. It blocks for d at the most, and may be called
// while the keeper does other things.
func (k *Keeper) Probe(since clock.Instant, d time.Duration) (taken, heard bool, err error) {
	p, addr := k.port, k.prefix.Addr()
	e := p.listen(addr)
	defer p.unlisten(e)

	end := time.NewTimer(d)
	defer end.Stop()
	again := time.NewTicker(max(d/asks, time.Millisecond))
	defer again.Stop()

	hears := func() bool { return clock.Instant(p.heardAt.Load()) >= since && p.heardAt.Load() != 0 }
	err = p.link.Ask(addr)
	var witnesses []netip.Addr
	if !hears() {
		var unknown error
		witnesses, unknown = p.witnesses(addr)
		err = errors.Join(err, unknown)
	}
	p.askAll(witnesses)

	for asked := 1; ; {
		select {
		case <-e.claimed:
			return true, true, nil
		case <-again.C:
			if asked++; asked > asks {
				continue
			}
			err = p.link.Ask(addr)
			if !hears() {
				p.askAll(witnesses)
			}
		case <-end.C:
			if hears() {
				return false, true, nil
			}
			if err == nil && len(witnesses) == 0 {
				heard, err = p.link.Up()
			}
			return false, heard, err
		}
	}
}

// witnesses returns whom to ask in order to find out whether this node hears at all.
func (p *Port) witnesses(vip netip.Addr) ([]netip.Addr, error) {
	known, err := p.link.Neighbours()
	p.mu.Lock()
	defer p.mu.Unlock()
	known = slices.DeleteFunc(known, func(a netip.Addr) bool {
		return a == vip || p.keepers[a] != nil || slices.Contains(p.peers, a)
	})
	return known[:min(len(known), maxWitnesses)], err
}

// askAll asks each address once. An ask that cannot be sent is one that is not answered.
func (p *Port) askAll(addrs []netip.Addr) {
	for _, a := range addrs {
		_ = p.link.Ask(a)
	}
}
