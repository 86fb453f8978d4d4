// Package ha is a node's part in the cluster: one goroutine that owns the election
// machines, is told what happens, and tells the address holders what to do.
package ha

import (
	"net/netip"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// A Mesh carries messages between the nodes. It may lose, delay, double and reorder
// them; what it delivers comes from who it says (AEAD), and no replay comes through.
type Mesh interface {
	// Send sends msg to one voter. It does not block and keeps no reference to msg.
	Send(to election.ID, msg []byte)
	// Events is what happened, in order. The channel is closed when the mesh is.
	Events() <-chan MeshEvent
	// Challenge asks over a fresh lifeline connection, sent through the interface of the
	// virtual address, whether the peer's process lives. Blocks up to d.
	Challenge(to election.ID, d time.Duration) bool
	// Signs is what the mesh knows of a voter's signs of life.
	Signs(of election.ID) Signs
}

// Signs are a voter's signs of life, as one mesh has them since it began.
type Signs struct {
	Limit      time.Duration // the silence after which it is judged silent
	Longest    time.Duration // the longest silence that ended
	NearMisses uint64        // silences of more than half the limit that ended before it
	Silences   uint64        // times that it was judged silent
	Foreign    bool          // it speaks with another key
	Unreadable bool          // it speaks no version that this node knows
	Paths      []Path        // the one of its address in join first
}

// Path is one way by which a voter is heard.
type Path struct {
	Name    string
	Age     time.Duration // since it was last heard there; -1 never
	Longest time.Duration // silence there
	Loss    float64       // part of what it sent there that did not arrive; 0 where that is not known
	Silent  bool
}

// MeshEvent is one thing that a mesh tells.
type MeshEvent struct {
	Kind MeshKind
	From election.ID
	Msg  []byte        // of Message: owned by the receiver
	At   clock.Instant // when it was read from the socket
	Info string        // of Alive: the node's name; of Gone, Silent and Foreign: what was seen
	// Newest is the newest version of the wire that the sender of a Message speaks.
	Newest uint8
}

// MeshKind is what a MeshEvent tells.
type MeshKind uint8

const (
	Message MeshKind = iota // From sent Msg
	Alive                   // From was heard for the first time, or again
	Silent                  // no carrier heard From for six beats and a half, or its loop stands still
	Gone                    // From's process is gone: lifeline closed and reconnect refused
	Foreign                 // From's address speaks, and it cannot be understood: another key, or version
)

// A Holder holds one virtual address on this host. Each method returns when the thing
// is done. Hold is repeated to renew; the rest may be called at any time, and twice.
type Holder interface {
	// Hold makes this host answer for the address until the instant, and announces it
	// if it did not before.
	Hold(until clock.Instant) error
	// Yield makes this host silent for the address while it goes on accepting what
	// reaches it; to is the successor's own address, or none if that is not known.
	Yield(to netip.Addr) error
	// Announce announces the address again in full, if it is held: another node that held
	// it too has dropped it.
	Announce() error
	// Drop makes this host silent for the address and removes it.
	Drop() error
	// Draining says until when the address goes on accepting here though it was let go, and
	// how many connections are left, -1 if that is not known yet; the zero instant says
	// that it does not. It does not block.
	Draining() (until clock.Instant, conns int)
	// Seat returns where this host is on the address's network: its hardware address and
	// its own address of the same family, if it has one. It does not block.
	Seat() (mac [6]byte, own netip.Addr)
	// SendOn sends packets for the address, of connections that this host does not have, on
	// to the host with that hardware address and address of its own, until the instant.
	// The zero instant ends it.
	SendOn(mac [6]byte, own netip.Addr, until clock.Instant) error
	// Probe asks the network whether another host answers for the address. heard says
	// whether any frame at all was heard on the interface since the instant, own probe's
	// answers included. It blocks for d at the most.
	Probe(since clock.Instant, d time.Duration) (taken, heard bool, err error)
}
