package beat

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// A Path is a way for heartbeats beside that of the address that a node is known by:
// another interface, with a network of its own.
type Path struct {
	Name   string     // the interface, as status shows it
	Local  netip.Addr // of this node on it; the socket is bound there if Device is ""
	Device string     // the socket takes and sends only by this interface
	// Seek is where a datagram for a peer goes whose address on the path is not known: to
	// everyone on its network. The answer tells the address.
	Seek netip.Addr
	// Known are addresses of peers that need not be sought.
	Known map[election.ID]netip.AddrPort
}

// FindPath finds the path that an operator means: by the name of an interface, or by the
// network (or address) that one of this host's addresses belongs to.
func FindPath(what string) (Path, error) {
	network, byNetwork := parseNetwork(what)
	all, err := net.Interfaces()
	if err != nil {
		return Path{}, fmt.Errorf("heartbeat path %q: %w", what, err)
	}
	var six Path
	for _, i := range all {
		if !byNetwork && i.Name != what {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return Path{}, fmt.Errorf("heartbeat path %q: %w", what, err)
		}
		for _, a := range addrs {
			p, ok := local(a)
			if !ok || byNetwork && !network.Contains(p.Addr()) {
				continue
			}
			if p.Addr().Is4() {
				return Path{Name: i.Name, Local: p.Addr(), Device: i.Name, Seek: broadcast(p)}, nil
			}
			if six.Name == "" {
				six = Path{Name: i.Name, Local: p.Addr(), Device: i.Name, Seek: netip.MustParseAddr("ff02::1").WithZone(i.Name)}
			}
		}
	}
	switch {
	case six.Name != "":
		return six, nil
	case byNetwork:
		return Path{}, fmt.Errorf("heartbeat path %q: this host has no address there", what)
	}
	return Path{}, fmt.Errorf("heartbeat path %q: there is no such interface with an address", what)
}

// followEvery is how often the interfaces of the paths are looked at.
const followEvery = time.Second

// followPaths moves the sockets of paths to interfaces that were made anew, until ctx ends.
func (m *Mesh) followPaths(ctx context.Context) {
	for wait(ctx, clock.Next(followEvery)) {
		m.rebind()
	}
}

// rebind moves the sockets of paths whose interface is another than before: the kernel has
// bound each to one that is gone, though it was asked for a name.
func (m *Mesh) rebind() {
	for i, p := range m.Paths {
		now := indexOf(p.Device)
		if now == 0 || now == m.indices[i] {
			continue
		}
		if err := m.sockets[i].move(p.Device); err != nil {
			m.Log.Warn("heartbeat path", "path", p.Name, "error", err)
			continue
		}
		m.indices[i] = now
		m.Log.Info("the interface of a heartbeat path was made anew", "path", p.Name)
		for _, peer := range m.peers {
			if peer != nil {
				peer.mu.Lock()
				peer.aim(i, p) // an address of IPv6 may have the number of the interface in it
				peer.mu.Unlock()
			}
		}
	}
}

// indexOf returns the number of an interface, 0 if there is none of the name.
func indexOf(device string) int {
	if device == "" {
		return 0
	}
	i, err := net.InterfaceByName(device)
	if err != nil {
		return 0
	}
	return i.Index
}

// InterfaceOf returns the name of the interface that has an address, or the address if
// none has it.
func InterfaceOf(a netip.Addr) string {
	if p, err := FindPath(netip.PrefixFrom(a, a.BitLen()).String()); err == nil {
		return p.Name
	}
	return a.String()
}

func parseNetwork(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen()), err == nil
}

func local(a net.Addr) (netip.Prefix, bool) {
	n, ok := a.(*net.IPNet)
	if !ok {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), ok
}

// broadcast returns the address of everyone in the network of p.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
