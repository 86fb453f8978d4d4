package election

import (
	"time"

	"proxyd/internal/clock"
)

// ID names a voter: its address in cluster.join, as text. Names of nodes come with
// the beat and may change; the address may not.
type ID string

// Config is what a Machine must know. It never changes.
type Config struct {
	Self   ID
	Voters []ID          // every voter, Self among them; the best candidate first
	Lease  time.Duration // how long a promise lasts for the one who asked
	Guard  time.Duration // how much longer a voter keeps it, for clocks that disagree
	Beat   time.Duration // renewals are asked once a beat; candidates wait index x one beat
	Term   uint64        // the highest term this node may have used before; ours start above
	Quiet  bool          // start silent for lease + guard: an earlier life may have promised
}

// An Event is something that happened to the node.
type Event interface{ event() }

type (
	// Tick says that time has passed; due at Machine.Deadline, harmless earlier.
	Tick struct{}
	// Received is a message from another voter.
	Received struct {
		From ID
		Msg  Msg
	}
	// Fitness says whether this node could serve if it held the address.
	Fitness struct{ Fit bool }
	// Gone says that a voter's process is gone for certain (its lifeline closed and the
	// reconnect was refused): whatever it promised or held, it does no more.
	Gone struct{ Peer ID }
	// Permit answers WantPermit: with two voters and the other silent, whether this node
	// may claim alone. It counts only for the silence it was asked for.
	Permit struct {
		Round uint64
		Ok    bool
	}
	// HandOver asks the holder to move the address to a named voter, or to the best fit
	// one if To is "".
	HandOver struct{ To ID }
	// Order tells in which order the voters are candidates, the best first, once it is
	// known: prefer names nodes, and their names come with the beat. It holds the same
	// voters as Config.Voters and changes nothing but who waits how long.
	Order struct{ Voters []ID }
	// Deaf says that this node hears nothing at all on the address's network. A deaf
	// holder lets go.
	Deaf struct{ Deaf bool }
)

func (Tick) event()     {}
func (Received) event() {}
func (Fitness) event()  {}
func (Gone) event()     {}
func (Permit) event()   {}
func (HandOver) event() {}
func (Order) event()    {}
func (Deaf) event()     {}

// An Action is something the node must now do. Actions are done in order, each
// finished before the next: a promise may be waived only after the address is gone.
type Action interface{ action() }

type (
	// Send asks for Msg to be sent; it may be lost.
	Send struct {
		To  ID
		Msg Msg
	}
	// Hold permits the node to hold the address, but never past Until.
	Hold struct {
		Term   uint64
		Until  clock.Instant
		Reason Reason // why it changed hands; the same in every renewal
	}
	// Yield moves the address out of sight (silent, still accepting) because To will
	// announce it next: a planned hand-over.
	Yield struct{ To ID }
	// Drop takes the permission back at once.
	Drop struct{ Reason Reason }
	// WantPermit asks whether this node may claim alone although Peer is silent; the
	// answer comes as a Permit with the same Round.
	WantPermit struct {
		Peer  ID
		Round uint64
	}
)

func (Send) action()       {}
func (Hold) action()       {}
func (Yield) action()      {}
func (Drop) action()       {}
func (WantPermit) action() {}

// Reason says why an address changed hands; the values are those of the metric
// proxyd_vip_transitions_total.
type Reason string

const (
	NodeDead    Reason = "node_dead"    // its lease ran out in silence, or its process is gone
	CheckFailed Reason = "check_failed" // the holder became unfit
	Planned     Reason = "planned"
	Preempt     Reason = "preempt"
	Conflict    Reason = "conflict" // two held after a cut
	Start       Reason = "start"    // nobody held it
	Isolated    Reason = "isolated" // a holder that is deaf or lost its voters
)

// Kind is what a message says.
type Kind uint8

const (
	Ask    Kind = iota // promise me the lease, or go on promising it
	Grant              // I promise
	Refuse             // I do not; Term is the highest I have seen
	Waive              // I need your promise no longer; To may name a successor
)

// Msg is the whole protocol.
type Msg struct {
	Kind Kind
	Term uint64
	Sent clock.Instant // the asker's clock when it asked, echoed in the answer
	To   ID            // of Waive: who is to have the address next; of Refuse: who has our promise
	Info Info          // of Ask by a holder: what decides between two after a cut
}

// Info is what a holder says of itself, so that of two that held during a cut the
// right one stays.
type Info struct {
	Holds  bool // an Ask of a holder, not of a candidate
	Fit    bool
	Deaf   bool          // was deaf during the cut
	Held   time.Duration // how long without a break
	Prefer uint8         // place in the order of candidates, 0 the best
}
