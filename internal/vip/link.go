// Package vip holds virtual addresses on an interface of this host: it adds them with
// a lifetime, announces them, watches for others who claim them, and takes them away.
package vip

import (
	"context"
	"net/netip"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/vip/fence"
)

// A Link is one network interface. Its fake, a LAN in memory, is package viptest; the
// real one is a Device. All methods may be called at once from several goroutines.
type Link interface {
	// Name returns the interface's name.
	Name() string
	// Add adds p, or prolongs it; it goes by itself when life is over. The link adds it
	// as /32 or /128 and so that it never becomes a source address by itself. The kernel
	// counts whole seconds, so life is rounded up to one.
	Add(p netip.Prefix, life time.Duration) error
	// Remove removes p. It is no error if it is not there.
	Remove(p netip.Prefix) error
	// Park puts p on the loopback interface, where it accepts and stays silent, for as
	// long as life; again to prolong. The interface itself is not touched, so that the
	// address is local at every instant when Park is followed by Remove. Unpark takes it
	// away from there; it is no error if it is not there.
	Park(p netip.Prefix, life time.Duration) error
	Unpark(p netip.Prefix) error
	// Gate tells the link's fence until when what concerns a may pass. It shuts by itself
	// then, whatever has become of this process. A link without a fence takes no notice.
	Gate(a netip.Addr, g fence.Gate) error
	// Addrs returns the addresses of the interface.
	Addrs() ([]netip.Prefix, error)
	// Neighbours returns addresses on the link that ought to answer if asked: gateways
	// and hosts that the kernel has spoken to within its own reachable time. It may be
	// empty.
	Neighbours() ([]netip.Addr, error)
	// Announce sends one round of gratuitous ARP (request and reply form) or one
	// unsolicited neighbour advertisement.
	Announce(a netip.Addr) error
	// Ask sends one ARP request or neighbour solicitation for a; answers come as Heard.
	Ask(a netip.Addr) error
	// Watch calls heard for each frame seen until ctx ends: every ARP and ND frame with
	// what it claims. Own frames are left out. heard may be called from several
	// goroutines at once and must not block. One caller at a time.
	Watch(ctx context.Context, heard func(Heard)) error
	// Follow calls changed for each change of the interface itself until ctx ends. One
	// caller at a time.
	Follow(ctx context.Context, changed func(Change)) error
	// Up reports whether the interface has carrier.
	Up() (bool, error)
	// Seat returns where this host is for those who have to do with the virtual address a:
	// its hardware address, and its own address of a's family, if it has one.
	Seat(a netip.Addr) (Seat, error)
	// SendOn sends packets for a, of connections that this host does not have, on to the
	// host at the seat until the instant. The zero Seat ends it.
	SendOn(a netip.Addr, to Seat, until clock.Instant) error
	// SentOn returns how many packets for a were sent on.
	SentOn(a netip.Addr) (uint64, error)
}

// A Seat is where a host is on a link.
type Seat struct {
	MAC  [6]byte
	Addr netip.Addr
}

// Heard is what one frame on the link told.
type Heard struct {
	From  [6]byte    // the sender's MAC
	Claim netip.Addr // the address that From answers for by this frame; zero if none
}

// Change is one thing that happened to an interface.
type Change struct {
	Kind ChangeKind
	Addr netip.Addr // of Removed
}

// ChangeKind is what happened to an interface.
type ChangeKind uint8

const (
	Removed  ChangeKind = iota // Addr was taken from the interface, by us or by another
	LinkUp                     // carrier came, or an interface of that name appeared
	LinkDown                   // carrier went, or the interface did
)
