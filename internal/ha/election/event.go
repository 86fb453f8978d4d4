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
	Lease  time.Duration // how long a promise lasts for the one who asked; at least 5 beats
	Guard  time.Duration // how much longer a voter keeps it, for clocks that disagree
	Beat   time.Duration // renewals are asked once a beat; candidates wait index x one beat
	Term   uint64        // the highest term this node may have used before; ours start above

	// Quiet makes the machine promise nothing for lease + guard, because an earlier life
	// may have promised. False is right only where no earlier life can have been.
	Quiet bool
	// Witness makes this voter one that never holds.
	Witness bool
	// Preempt is how long a better candidate must have been fit, and we must have held,
	// before the holder hands over to it; 0 never (sticky). "At once" is any small
	// positive duration.
	Preempt time.Duration
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
	// Fitness says how ill this node is: whether it could serve if it held the address, and
	// if not, how much is amiss. Between nodes that are ill the less ill one is better.
	Fitness struct{ Ill Ill }
	// Gone says that a voter's process is gone for certain (its lifeline closed and the
	// reconnect was refused): whatever it promised or held, it does no more. At is when
	// the refused reconnect was begun, by this node's clock; 0 is now. A Gone that is
	// older than one lease is not believed, since the voter may have a new life by then.
	Gone struct {
		Peer ID
		At   clock.Instant
	}
	// Permit answers WantPermit: with two voters and the other silent, whether this node
	// may claim alone. It counts only for the silence it was asked for.
	Permit struct {
		Round uint64
		Ok    bool
	}
	// HandOver asks the holder to move the address to a named voter, or to the best fit
	// one if To is "". It does nothing where Machine.Successor names none. Chosen says that
	// somebody wants it there: until the new holder fails, Preempt does not move it away. Last
	// says that the holder lets go in any case: then LastSuccessor is good enough.
	HandOver struct {
		To     ID
		Chosen bool
		Last   bool
	}
	// Order tells in which order the voters are candidates, the best first, once it is
	// known: prefer names nodes, and their names come with the beat. It holds the same
	// voters as Config.Voters and changes nothing but who waits how long.
	Order struct{ Voters []ID }
	// Wish changes what Config says under these names, while the machine runs. A holder that
	// becomes a witness lets go.
	Wish struct {
		Preempt time.Duration
		Witness bool
	}
	// Deaf says that this node hears nothing at all on the address's network. A deaf
	// holder lets go.
	Deaf struct{ Deaf bool }
	// Pause stops the moves that the holder decides by preference or fitness. One that
	// falls silent is replaced all the same.
	Pause struct{ On bool }
)

func (Tick) event()     {}
func (Received) event() {}
func (Fitness) event()  {}
func (Gone) event()     {}
func (Permit) event()   {}
func (HandOver) event() {}
func (Order) event()    {}
func (Wish) event()     {}
func (Deaf) event()     {}
func (Pause) event()    {}

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
	// announce it next: a planned hand-over. No Drop follows it: the node ends the
	// drain by itself. A Hold follows if To does not take the address.
	Yield struct {
		To     ID
		Reason Reason
	}
	// Drop takes the permission back at once.
	Drop struct{ Reason Reason }
	// Announce asks for the address, which is held, to be announced again in full:
	// another node that held it too has dropped it.
	Announce struct{}
	// WantPermit asks whether this node may hold alone although Peer is silent; the
	// answer comes as a Permit with the same Round. With Keep it holds already and asks
	// to go on: then it must only not be cut off itself (deaf, or without its arbiter),
	// since a peer that lives and reaches us gets no permit. Without Keep the network
	// must show no live holder. No answer is a no. Only what is heard after Since shows
	// that the node is not cut off: a frame may well come between the peer's last word and
	// the moment at which the cable is pulled. One who holds alone is asked again each lease.
	WantPermit struct {
		Peer  ID
		Round uint64
		Keep  bool
		Since clock.Instant
	}
)

func (Send) action()       {}
func (Hold) action()       {}
func (Yield) action()      {}
func (Drop) action()       {}
func (Announce) action()   {}
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
	Kind   Kind
	Term   uint64
	Sent   clock.Instant // the asker's clock when it asked, echoed in the answers
	To     ID            // of Waive: who is to have the address next; of Refuse: who has our promise
	Reason Reason        // of Waive: why the holder lets go; "" if the sender never held
	Chosen bool          // of Waive: To is to keep the address though another candidate is better
	Info   Info
}

// Info is what the sender of a message says of itself. It decides nothing where a
// majority decides; it tells the holder whom it could hand over to, and of two that
// held during a cut which one stays.
type Info struct {
	Holds  bool
	Ill    Ill           // how far it is from being fit to hold
	Quiet  bool          // has just started: holds nothing, promises nothing yet
	Deaf   bool          // was deaf during the cut
	Hears  bool          // has heard the receiver within the last lease less two beats
	Held   time.Duration // how long without a break
	Prefer uint8         // place in the order of candidates, 0 the best
}

// Ill says how far a node is from being fit to hold an address.
type Ill uint8

const (
	Well   Ill = 0   // fit
	Barred Ill = 255 // it must not hold at all: it is deaf, has just started, or is a witness
)
