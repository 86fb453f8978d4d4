package vip

import (
	"net/netip"

	"proxyd/internal/vip/fence"
)

// PutUpFence puts a fence up on the interface. What c says of the interface is filled in.
// It stays up until Close, and goes along when the interface is made anew.
func (d *Device) PutUpFence(c fence.Config) error {
	d.locating.Lock() // so that no new interface comes in between
	defer d.locating.Unlock()
	p := d.place.Load()
	if p == nil {
		return ErrNoInterface
	}
	c.Interface, c.Index = d.name, p.index
	f, err := fence.Open(c)
	if err != nil {
		return err
	}
	d.fence.Store(f)
	return nil
}

// Fence returns the device's fence, nil if none was put up.
func (d *Device) Fence() *fence.Fence { return d.fence.Load() }

// Fenced makes the fence be about an address more.
func (d *Device) Fenced(a netip.Addr) error {
	if f := d.fence.Load(); f != nil {
		return f.Add(a)
	}
	return nil
}

// Unfenced makes the fence not be about an address any more, which is on no interface.
func (d *Device) Unfenced(a netip.Addr) error {
	if f := d.fence.Load(); f != nil {
		return f.Forget(a)
	}
	return nil
}

// MendFence puts the fence back if somebody else took it away, and reports whether it had to.
func (d *Device) MendFence() (had bool, err error) {
	d.locating.Lock() // while the interface is made anew it is not where it was
	defer d.locating.Unlock()
	if f := d.fence.Load(); f != nil && d.place.Load() != nil {
		return f.Mend()
	}
	return false, nil
}

// Gate tells the fence until when what concerns a may pass.
func (d *Device) Gate(a netip.Addr, g fence.Gate) error {
	if f := d.fence.Load(); f != nil {
		return f.Set(a, g)
	}
	return nil
}
