package vip

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// AskAnew has the kernel ask again, with the next packet to a, who has that address. It
// is for an address of which nothing is heard.
//
// Linux asks once a second and holds packets back meanwhile. Two nodes that are connected
// again after a cut could else not speak for up to a second, though clients reach both.
// It is asked again also where the answer is known: the question tells the other host,
// which may be the one that waits, where we are. The entry of a router, by which others
// are reached too, stays if it was answered for, and one that an operator has set always.
func AskAnew(a netip.Addr) error {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		return nil // no way there: nobody is asked for anything
	}
	const unanswered = unix.NUD_INCOMPLETE | unix.NUD_FAILED
	index, hop := routes[0].LinkIndex, a
	forget := uint16(unanswered | unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE)
	if gw, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		hop, forget = gw.Unmap(), unanswered
	}
	state, err := neighbourState(index, hop)
	if err == nil && state&forget != 0 {
		err = netlink.NeighDel(&netlink.Neigh{LinkIndex: index, IP: hop.AsSlice()})
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("ask anew who has %s: %w", hop, err)
	}
	return nil
}

// neighbourState returns the state (NUD_) of one entry in the kernel's table. One entry,
// for the table may be long.
func neighbourState(index int, a netip.Addr) (uint16, error) {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	req.AddData(&netlink.Ndmsg{Family: uint8(family), Index: uint32(index)})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, a.AsSlice()))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return 0, err
	}
	for _, b := range answers {
		if n, err := netlink.NeighDeserialize(b); err == nil {
			return uint16(n.State), nil
		}
	}
	return 0, unix.ENOENT
}
