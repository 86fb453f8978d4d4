package vip

import (
	"net/netip"
	"time"

	"proxyd/internal/clock"
)

// SetDrain changes how long an address that is let go later goes on accepting.
func (k *Keeper) SetDrain(d time.Duration) error {
	return k.ask(func() error {
		k.drain = d
		return nil
	})
}

// EndDrain removes a parked address before its time: nobody uses it any more.
func (k *Keeper) EndDrain() error {
	return k.ask(func() error {
		if k.state != Parked {
			return nil
		}
		return k.drop()
	})
}

// Draining says until when the address goes on accepting here though it was let go, and how
// many connections are left, -1 if that is not known yet. The zero instant says that it
// does not.
func (k *Keeper) Draining() (until clock.Instant, conns int) {
	if s := k.Status(); s.State == Parked {
		return s.Until, s.Conns
	}
	return 0, 0
}

// NoteConns says how many connections a parked address still has.
func (k *Keeper) NoteConns(n int) { k.left.Store(int64(n)) }

// Seat returns where this host is on the address's network, as it was when the keeper began,
// or when the address was last announced again.
func (k *Keeper) Seat() (mac [6]byte, own netip.Addr) {
	s := k.seat.Load()
	return s.MAC, s.Addr
}

// SendOn sends packets for the address, of connections that this host does not have, on to
// the host with that hardware address and address of its own, until the instant; the zero
// instant ends it.
func (k *Keeper) SendOn(mac [6]byte, own netip.Addr, until clock.Instant) error {
	if until == 0 {
		return k.port.link.SendOn(k.Addr(), Seat{}, 0)
	}
	return k.port.link.SendOn(k.Addr(), Seat{mac, own}, until)
}

// SentOn returns how many packets were sent on.
func (k *Keeper) SentOn() (uint64, error) { return k.port.link.SentOn(k.Addr()) }
