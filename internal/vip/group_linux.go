package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"
)

// groups are the multicast groups in which neighbours ask for IPv6 addresses. Linux joins that of
// an address in a work queue, some time after it has added the address; who asks in between
// asks again a second later. So this host is in the group before: it answers for what it has.
type groups struct {
	mu     sync.Mutex
	fd     int // a socket that has them joined; valid if joined is not nil
	joined map[member]bool
}

type member struct {
	addr  netip.Addr
	index int // of the interface
}

// join joins the group of an IPv6 address, unless this host is in it.
func (g *groups) join(a netip.Addr, index int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := member{a, index}
	if g.joined[m] {
		return nil
	}
	if g.joined == nil {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		g.fd, g.joined = fd, map[member]bool{}
	}
	group, err := ndp.SolicitedNodeMulticast(a)
	if err != nil {
		return err
	}
	err = unix.SetsockoptIPv6Mreq(g.fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(index)})
	if err != nil && !errors.Is(err, unix.EADDRINUSE) { // another address has the same
		return fmt.Errorf("join %s: %w", group, err)
	}
	g.joined[m] = true
	return nil
}

// close leaves all groups.
func (g *groups) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.joined == nil {
		return nil
	}
	g.joined = nil
	return unix.Close(g.fd)
}
