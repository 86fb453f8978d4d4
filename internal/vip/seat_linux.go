package vip

import (
	"net/netip"

	"proxyd/internal/clock"
	"proxyd/internal/vip/relay"
)

// OpenRelay makes SendOn work, by the way that cluster.handover asks for. Without it, or
// with the plain way, SendOn does nothing. What c says of the interface is filled in. One
// that was opened before is closed. Close ends it.
func (d *Device) OpenRelay(c relay.Config) error {
	p, err := d.here()
	if err != nil {
		return err
	}
	c.Place, c.Log = p.relay(d.name), d.log
	r, err := relay.Open(c)
	if err != nil {
		return err
	}
	if old := d.relay.Swap(r); old != nil {
		return old.Close()
	}
	return nil
}

// Relay returns what SendOn works by; nil if it was not opened.
func (d *Device) Relay() *relay.Relay { return d.relay.Load() }

func (p place) relay(name string) relay.Place {
	return relay.Place{Index: p.index, Name: name, MAC: p.mac}
}

// SendOn implements Link.
func (d *Device) SendOn(a netip.Addr, to Seat, until clock.Instant) error {
	r := d.relay.Load()
	switch {
	case r == nil:
		return nil
	case to == Seat{}:
		return r.Set(a, relay.Target{})
	}
	return r.Set(a, relay.Target{MAC: to.MAC, Addr: to.Addr, Until: until})
}

// SentOn implements Link.
func (d *Device) SentOn(a netip.Addr) (uint64, error) {
	if r := d.relay.Load(); r != nil {
		return r.Sent(a)
	}
	return 0, nil
}

// Seat implements Link.
func (d *Device) Seat(a netip.Addr) (Seat, error) {
	p, err := d.here()
	if err != nil {
		return Seat{}, err
	}
	all, err := d.addrsOf(p.index)
	if err != nil {
		return Seat{}, err
	}
	s := Seat{MAC: p.mac}
	for _, own := range all {
		// Virtual addresses are those of one address; they may move. A link-local address is
		// as good as any, since the other host is on this link too.
		if own.Addr().Is4() == a.Is4() && !own.IsSingleIP() {
			s.Addr = own.Addr()
			if own.Contains(a) {
				return s, nil
			}
		}
	}
	return s, nil
}
