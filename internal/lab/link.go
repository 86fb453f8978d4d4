package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// The functions here act on the network namespace of the calling thread: call them in
// Space.Do.

// lan is a switch: a bridge in a namespace of its own, with a port for every host.
type lan struct {
	space *Space
}

const bridgeName = "lan"

func newLAN() (*lan, error) {
	space, err := NewSpace()
	if err != nil {
		return nil, err
	}
	err = space.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		// A switch that snoops multicast without a querier loses neighbour discovery.
		snooping := false
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
			return fmt.Errorf("make the bridge: %w", err)
		}
		return linkUp(bridgeName)
	})
	if err != nil {
		space.Close()
		return nil, err
	}
	return &lan{space}, nil
}

// plug lays a cable from the switch to a new interface eth0 in the namespace of a host
// and gives that interface its addresses.
func (l *lan) plug(port string, host *Space, mac net.HardwareAddr, addrs ...netip.Prefix) error {
	err := l.space.Do(func() error {
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return fmt.Errorf("find the bridge: %w", err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = port
		attrs.MasterIndex = bridge.Attrs().Index
		veth := &netlink.Veth{
			LinkAttrs:        attrs,
			PeerName:         hostInterface,
			PeerHardwareAddr: mac,
			PeerNamespace:    netlink.NsFd(host.file.Fd()),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("lay cable %s: %w", port, err)
		}
		return linkUp(port)
	})
	if err != nil {
		return err
	}
	return host.Do(func() error {
		// Duplicate address detection would keep an IPv6 address back for a second.
		if err := sysctl("net/ipv6/conf/"+hostInterface+"/accept_dad", "0"); err != nil {
			return err
		}
		link, err := netlink.LinkByName(hostInterface)
		if err != nil {
			return fmt.Errorf("find %s: %w", hostInterface, err)
		}
		for _, a := range addrs {
			n := &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: n}); err != nil {
				return fmt.Errorf("give %s the address %v: %w", hostInterface, a, err)
			}
		}
		return linkUp(hostInterface)
	})
}

// carrier takes the carrier from a port and its host, or gives it back.
func (l *lan) carrier(port string, on bool) error {
	return l.atPort(port, func(link netlink.Link) error {
		if on {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
}

// forward makes the switch drop every frame from and to a port, or stop doing so. The host
// at the port keeps its carrier and notices nothing.
func (l *lan) forward(port string, on bool) error {
	return l.atPort(port, func(link netlink.Link) error {
		if !on {
			return netlink.LinkSetNoMaster(link)
		}
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	})
}

// isolate keeps a port from exchanging frames with the other isolated ports. All the
// others still reach it.
func (l *lan) isolate(port string, on bool) error {
	return l.atPort(port, func(link netlink.Link) error { return netlink.LinkSetIsolated(link, on) })
}

func (l *lan) atPort(port string, f func(netlink.Link) error) error {
	return l.space.Do(func() error {
		link, err := netlink.LinkByName(port)
		if err == nil {
			err = f(link)
		}
		if err != nil {
			return fmt.Errorf("port %s of the switch: %w", port, err)
		}
		return nil
	})
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

// sysctl sets a key of the calling thread's network namespace. A key that this kernel
// does not have is left alone.
func sysctl(key, value string) error {
	err := os.WriteFile("/proc/sys/"+key, []byte(value), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}
