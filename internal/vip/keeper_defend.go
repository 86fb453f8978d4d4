package vip

import (
	"proxyd/internal/clock"
)

// contest counts a MAC that claims the address while we hold it, and announces against
// it. Who is right is not decided here.
func (k *Keeper) contest() {
	mac := k.claim.Swap(nil)
	now := k.port.now()
	if mac == nil || k.state != Held || now >= k.until {
		return
	}
	k.Stats.Conflicts.Add(1)
	if k.defended != 0 && now < k.defended.Add(defend) {
		return
	}
	k.defended = now
	_ = k.announceAnew()
	if k.conflict != nil {
		k.conflict(mac[:])
	}
}

// repair puts the address back that somebody else took from the interface. The sign may
// also be that of a removal of our own, before we took the address again.
func (k *Keeper) repair() {
	if now := k.port.now(); k.state == Held && now < k.until && k.gone() {
		k.restore(now)
	}
}

// cameUp announces again on a link that was down, or whose changes were not seen for a
// while: what the neighbours and the switch knew is stale. The address may be gone too:
// an IPv6 address goes with the link.
func (k *Keeper) cameUp() {
	now := k.port.now()
	switch {
	case k.state != Held || now >= k.until:
	case k.gone():
		k.restore(now)
	case k.renew(now) == nil:
		_ = k.announceAnew() // kept in fault, and counted
	}
}

// gone reports whether the address is not on the interface.
func (k *Keeper) gone() bool {
	there, err := k.port.link.Addrs()
	return err == nil && !contains(there, k.Addr())
}

// restore puts the held address back and announces it in full.
func (k *Keeper) restore(now clock.Instant) {
	if k.renew(now) != nil {
		return // tried again from tick; kept in fault, and counted
	}
	k.Stats.Repairs.Add(1)
	k.log.Warn("address was removed by somebody else; put back")
	_ = k.announceAnew()
}
