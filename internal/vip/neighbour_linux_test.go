package vip

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestAddressThatIsNotHeardIsAskedForAnew(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	const known = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY
	index := must(netlink.LinkByName(s.name))(t).Attrs().Index
	c := must(net.ListenUDP("udp", nil))(t)
	defer c.Close()
	for _, addr := range []struct{ absent, present, set, beyond string }{
		{"10.9.0.7", "10.9.0.9", "10.9.0.8", "198.51.100.0/24"},
		{"fd09::7", "fd09::9", "fd09::8", "fd10::/64"},
	} {
		beyond := netip.MustParsePrefix(addr.beyond)
		absent, present, set := netip.MustParseAddr(addr.absent), netip.MustParseAddr(addr.present), netip.MustParseAddr(addr.set)
		ok(t, netlink.RouteAdd(&netlink.Route{LinkIndex: index, Gw: present.AsSlice(),
			Dst: &net.IPNet{IP: beyond.Addr().AsSlice(), Mask: net.CIDRMask(beyond.Bits(), beyond.Addr().BitLen())}}))
		ok(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: index, IP: set.AsSlice(), State: unix.NUD_PERMANENT, HardwareAddr: s.fmac[:]}))
		say := func(a netip.Addr) { _, _ = c.WriteToUDPAddrPort([]byte{1}, netip.AddrPortFrom(a, 9)) }
		state := func(a netip.Addr) uint16 {
			n, err := neighbourState(index, a)
			if err != nil {
				return unix.NUD_NONE
			}
			return n
		}
		eventually(t, "an answer", func() bool { say(present); return state(present)&known != 0 })
		eventually(t, "a question", func() bool { say(absent); return state(absent)&unix.NUD_INCOMPLETE != 0 })
		for _, a := range []netip.Addr{absent, set, beyond.Addr().Next(), netip.MustParseAddr("192.0.2.1")} {
			ok(t, AskAnew(a))
		}
		if n := state(absent); n != unix.NUD_NONE {
			t.Errorf("%s, whom nobody answers for: state %#x, want no entry", absent, n)
		}
		if state(present)&known == 0 {
			t.Errorf("%s, a router that answered, is forgotten", present)
		}
		if n := state(set); n != unix.NUD_PERMANENT {
			t.Errorf("%s, set by hand: state %#x", set, n)
		}
		ok(t, AskAnew(absent)) // there is nothing to forget
		ok(t, AskAnew(present))
		if n := state(present); n != unix.NUD_NONE {
			t.Errorf("%s, who was answered for: state %#x, want to be told of us by being asked", present, n)
		}
	}
}
