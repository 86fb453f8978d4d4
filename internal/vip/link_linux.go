package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loopback is the index of lo: the first interface of every network namespace.
const loopback = 1

// Add adds p as a single address, or prolongs it.
//
// With the subnet's own length, removing a virtual address that was added first would
// take the node's own address and route along, so the length is that of one address.
// Preferred lifetime 0 keeps IPv6 from choosing it as a source; nodad, because whether
// it is free was asked before, and detection would keep it silent for a second.
func (d *Device) Add(p netip.Prefix, life time.Duration) error {
	return d.at(p, "add %s to %s: %w", func(index int) error {
		d.bridge(p.Addr(), life)
		if p.Addr().Is6() {
			if err := d.groups.join(p.Addr(), index); err != nil {
				d.warnOnce("who asks for an address in the moment in which it comes has to ask again", p.Addr(), err)
			}
		}
		return d.change.put(p.Addr(), index, life)
	})
}

// Remove removes p. It is no error if it is not there, or the interface is not.
func (d *Device) Remove(p netip.Prefix) error {
	err := d.at(p, "remove %s from %s: %w", func(index int) error {
		return absent(d.change.remove(p.Addr(), index))
	})
	if errors.Is(err, ErrNoInterface) {
		err = nil
	}
	return errors.Join(err, d.unbridge(p.Addr()))
}

// Park puts p on loopback, where it accepts and nobody is told. It is silent only with
// arp_ignore on the interface: see Sysctls.
func (d *Device) Park(p netip.Prefix, life time.Duration) error {
	d.bridge(p.Addr(), life)
	if err := d.change.put(p.Addr(), loopback, life); err != nil {
		return fmt.Errorf("park %s on lo: %w", p.Addr(), err)
	}
	return nil
}

// Unpark takes p from loopback. It is no error if it is not there.
func (d *Device) Unpark(p netip.Prefix) error {
	if err := absent(d.change.remove(p.Addr(), loopback)); err != nil {
		return fmt.Errorf("take %s from lo: %w", p.Addr(), err)
	}
	return d.unbridge(p.Addr())
}

// bridge makes an address local that is about to come, or to move.
//
// Linux adds an IPv6 address at once and the route that makes it local in a work queue,
// later, which on a busy machine is a tenth of a second and more: packets that come between
// the two are lost, and a lost SYN costs its client a second. So it gets a route of ours
// before, for as long as the address lives. IPv4 does both at once. Where lo is down, or without
// IPv6, there can be no such route: the address comes all the same.
func (d *Device) bridge(a netip.Addr, life time.Duration) {
	if !a.Is6() {
		return
	}
	if err := d.change.putRoute(a, life+time.Second); err != nil {
		d.warnOnce("packets to an address are lost for a moment when it comes or goes: it has no route of ours", a, err)
	}
}

// warnOnce logs what is wrong with an address that is prolonged again and again.
func (d *Device) warnOnce(what string, a netip.Addr, err error) {
	type warning struct {
		what string
		a    netip.Addr
	}
	if _, said := d.warned.LoadOrStore(warning{what, a}, true); !said {
		d.log.Warn(what, "address", a, "error", err)
	}
}

// unbridge ends that for an address that is nowhere any more.
func (d *Device) unbridge(a netip.Addr) error {
	if !a.Is6() {
		return nil
	}
	places := []int{loopback}
	if at := d.place.Load(); at != nil {
		places = append(places, at.index)
	}
	for _, index := range places {
		if there, err := d.addrsOf(index); err != nil || contains(there, a) {
			return nil // or it ends by itself
		}
	}
	if err := d.change.removeRoute(a); err != nil {
		return fmt.Errorf("end the route of %s: %w", a, err)
	}
	return nil
}

// at does something to an address at the device's place.
func (d *Device) at(p netip.Prefix, format string, do func(index int) error) error {
	if err := d.twice(func(pl place) error { return do(pl.index) }); err != nil {
		return fmt.Errorf(format, p.Addr(), d.name, err)
	}
	return nil
}

// absent turns the errors that say that there is nothing to remove into none.
func absent(err error) error {
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Addrs returns the addresses of the interface, with the lengths they were given.
func (d *Device) Addrs() ([]netip.Prefix, error) {
	p, err := d.here()
	if err != nil {
		return nil, err
	}
	return d.addrsOf(p.index)
}

func (d *Device) addrsOf(index int) ([]netip.Prefix, error) {
	var l listed
	d.listings.Do(&l, func(all []*listed) {
		addrs, err := listAddrs(d.query)
		for _, l := range all {
			*l = listed{addrs, err}
		}
	})
	return on(index, l.addrs), l.err
}

// listed is an answer of the kernel to who asked it for all addresses.
type listed struct {
	addrs []netlink.Addr
	err   error
}

func listAddrs(h *netlink.Handle) ([]netlink.Addr, error) {
	all, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return all, nil
}

// on returns the addresses of the interface with an index.
func on(index int, all []netlink.Addr) (ps []netip.Prefix) {
	for _, a := range all {
		if p, ok := prefix(a.IPNet); ok && a.LinkIndex == index {
			ps = append(ps, p)
		}
	}
	return ps
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok
}

// Neighbours returns who ought to answer if asked: gateways that the kernel has an
// entry for, then hosts that were reachable within the kernel's own reachable time. An
// entry that is merely stale proves nothing: its host may have been switched off.
func (d *Device) Neighbours() ([]netip.Addr, error) {
	p, err := d.here()
	if err != nil {
		return nil, err
	}
	entries, err := d.query.NeighList(p.index, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list neighbours of %s: %w", d.name, err)
	}
	gateways, err := d.gateways(p.index)
	if err != nil {
		return nil, err
	}
	const (
		fresh = unix.NUD_REACHABLE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
		known = fresh | unix.NUD_STALE
	)
	var first, rest []netip.Addr
	for _, e := range entries {
		a, ok := netip.AddrFromSlice(e.IP)
		switch a = a.Unmap(); {
		case !ok || a.IsMulticast():
		case gateways[a] && e.State&known != 0:
			first = append(first, a)
		case e.State&fresh != 0:
			rest = append(rest, a)
		}
	}
	return append(first, rest...), nil
}

// gateways returns the next hops of the routes through the interface.
func (d *Device) gateways(index int) (map[netip.Addr]bool, error) {
	routes, err := d.query.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: index}, netlink.RT_FILTER_OIF)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list routes of %s: %w", d.name, err)
	}
	all := map[netip.Addr]bool{}
	for _, r := range routes {
		if a, ok := netip.AddrFromSlice(r.Gw); ok {
			all[a.Unmap()] = true
		}
	}
	return all, nil
}
