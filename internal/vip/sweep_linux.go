package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Sweep removes virtual addresses that an earlier life left on the interface or on
// loopback, and returns those that it found. An address that is there with another
// length than one address has was not ours: it is left alone and named in the error,
// because a host that has it for ever cannot share it.
func (d *Device) Sweep(vips []netip.Prefix) (found []netip.Prefix, err error) {
	p, err := d.here()
	if err != nil {
		return nil, err
	}
	return sweep(d.query, d.change, p.index, d.name, vips, false)
}

// Release takes this host's virtual addresses away, by interface name, without any
// process that holds them: for after its death. An interface that does not exist has
// none.
func Release(vips map[string][]netip.Prefix) error {
	_, err := release(vips, false)
	return err
}

// ReleaseLeft is Release for addresses that are no virtual ones any more, and returns those that
// it found. One without an end is not of an earlier life: whoever runs this host has it.
func ReleaseLeft(left map[string][]netip.Addr) (found []netip.Prefix, err error) {
	if len(left) == 0 {
		return nil, nil
	}
	vips := map[string][]netip.Prefix{}
	for name, addrs := range left {
		for _, a := range addrs {
			vips[name] = append(vips[name], Host(a))
		}
	}
	return release(vips, true)
}

func release(vips map[string][]netip.Prefix, mortal bool) (found []netip.Prefix, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	c, err := openChanges(life)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer c.close()
	var errs []error
	for name, ps := range vips {
		index := loopback // parked ones at the least
		l, err := h.LinkByName(name)
		switch {
		case err == nil:
			index = l.Attrs().Index
		case !errors.As(err, new(netlink.LinkNotFoundError)):
			errs = append(errs, fmt.Errorf("find interface %q: %w", name, err))
		}
		some, err := sweep(h, c, index, name, ps, mortal)
		found, errs = append(found, some...), append(errs, err)
	}
	return found, errors.Join(errs...)
}

// sweep removes addresses from an interface and from loopback; mortal: those alone that are as a
// keeper leaves them, and end by themselves.
func sweep(h *netlink.Handle, c *changes, index int, name string, vips []netip.Prefix, mortal bool) (found []netip.Prefix, err error) {
	var errs []error
	for at, name := range map[int]string{index: name, loopback: "lo"} {
		all, err := listAddrs(h)
		if err != nil {
			return found, err
		}
		if mortal {
			all = slices.DeleteFunc(all, func(a netlink.Addr) bool {
				p, _ := prefix(a.IPNet)
				return a.Flags&unix.IFA_F_PERMANENT != 0 || !p.IsSingleIP()
			})
		}
		for _, p := range on(at, all) {
			if !contains(vips, p.Addr()) {
				continue
			}
			if !p.IsSingleIP() {
				errs = append(errs, fmt.Errorf("%s is on %s already and was not put there by proxyd: remove it from the host's own configuration", p, name))
				continue
			}
			if err := absent(c.remove(p.Addr(), at)); err != nil {
				errs = append(errs, fmt.Errorf("remove %s: %w", p.Addr(), err))
				continue
			}
			if !slices.Contains(found, p) {
				found = append(found, p)
			}
		}
	}
	for _, p := range vips {
		if !p.Addr().Is6() {
			continue
		}
		if err := c.removeRoute(p.Addr()); err != nil {
			errs = append(errs, fmt.Errorf("remove the route of %s: %w", p.Addr(), err))
		}
	}
	return found, errors.Join(errs...)
}

// InReach returns an error that names the interface's subnets if the virtual address is
// in none of them, so that no neighbour would ask for it.
func (d *Device) InReach(vip netip.Prefix) error {
	own, err := d.Addrs()
	if err != nil {
		return err
	}
	return inReach(vip, d.name, own)
}

func inReach(vip netip.Prefix, name string, own []netip.Prefix) error {
	var subnets []string
	for _, p := range own {
		if p.Addr().Is4() != vip.Addr().Is4() || p.IsSingleIP() {
			continue
		}
		if p.Contains(vip.Addr()) {
			return nil
		}
		subnets = append(subnets, p.Masked().String())
	}
	if subnets == nil {
		family := "IPv6"
		if vip.Addr().Is4() {
			family = "IPv4"
		}
		return fmt.Errorf("%s is not in any subnet of %s, which has no %s address", vip, name, family)
	}
	return fmt.Errorf("%s is not in any subnet of %s (%s)", vip, name, strings.Join(subnets, ", "))
}
