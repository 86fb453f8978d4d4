package ha

import (
	"errors"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha/election"
)

// An elector is the election of one VIP, and of those that follow it, with what this
// node has of them.
type elector struct {
	name    string            // of the VIP that leads
	vips    []string          // name and its followers
	vip     *config.VIP       // nil of a guest: another node's VIP, in whose election this node only votes
	holders []Holder          // of vips, in order; none if this host cannot hold them
	onward  map[string]onward // by VIP: whom their packets are sent on to, as the holders of this process were told
	machine *election.Machine
	order   []election.ID
	acts    []election.Action // what the machine said and perform has not done yet

	held   bool
	since  clock.Instant   // when we began to hold
	until  clock.Instant   // the end of our lease
	term   uint64          // the latest we held under
	reason election.Reason // why it is ours
	from   string          // who had it before
	text   string

	drained clock.Instant // when we last served older connections
	holder  election.ID   // who was last known to hold
	heard   clock.Instant // when the holder last gave a sign of life
	note    string        // what the operator gave as the reason of a change about to come
	noteAt  clock.Instant

	ill     election.Ill // what the machine was told
	barred  bool         // likewise
	paused  bool         // likewise
	ceding  bool         // it was held when the node was withheld, and nobody else holds it yet
	deaf    bool         // nothing is heard on the address's network
	asking  bool         // a probe is under way that finds out whether that goes on
	broken  bool         // a Holder could not do it
	retry   clock.Instant
	fault   string
	warned  clock.Instant // when a refused claim was last worth a warning
	polled  clock.Instant // when a message of its election last came
	changes map[election.Reason]uint64

	role      election.Role // as last seen
	permitted string        // what the network said when it was last asked
	unheld    unheld
}

// brokenFor is how long a node does not try again to hold what it could not.
const brokenFor = 5 * time.Second

// preempt returns what the machine must know of the wish of v. One that prefers nobody and
// is not to be spread has nobody to wait for.
func preempt(v *config.VIP) time.Duration {
	if !v.Preempt.On || len(v.Prefer) == 0 && !v.Spread {
		return 0
	}
	return max(v.Preempt.After, 1)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// start gives the machines what they must know first.
func (n *Node) start(now clock.Instant) {
	n.news = true
	n.tick(now)
	n.settle(now)
	n.speak(now)
}

// How ill a node is for one election.
const (
	leaving election.Ill = 1   // it would rather not, and still serves better than one that is ill
	stray   election.Ill = 50  // it reaches no arbiter
	drained election.Ill = 99  // an operator took it out: before those that could not serve, after all others
	Unwell  election.Ill = 100 // it could not serve; what else is amiss adds up to 99 to it
	unable  election.Ill = 200 // it could not hold the address when it last tried
	going   election.Ill = 254 // its process ends: nobody gives it anything back
)

// illness returns how far this node is from being fit for e.
func (n *Node) illness(e *elector) election.Ill {
	if e.broken {
		return max(n.ill, unable)
	}
	return n.ill
}

// fit reports whether this node is a good candidate for e. The machine knows that where
// nobody is well, one that is not is better than none.
func (n *Node) fit(e *elector) bool {
	return len(e.holders) > 0 && n.illness(e) == election.Well
}

// enter gives e its machine. One that is made while the node runs owes no silence: no
// life of this node can have promised anything in that election that still counts.
func (n *Node) enter(now clock.Instant, e *elector) {
	e.order = n.base(e)
	n.replace = true
	c := election.Config{
		Self: n.Self, Voters: e.order,
		Lease: n.Timing.Lease, Guard: n.Timing.Guard, Beat: n.Timing.Heartbeat,
		Term: max(n.Term, n.Terms.Highest()), Witness: len(e.holders) == 0,
	}
	if e.vip != nil {
		c.Preempt = preempt(e.vip)
	}
	if len(n.Voters) > 1 && now < n.born.Add(c.Lease+c.Guard) {
		c.Quiet, now = true, n.born
	}
	e.machine = election.New(now, c)
	e.ill, e.barred = election.Well, false // as a new machine has it
}

// post puts a message into the frame of its receiver.
func (n *Node) post(e *elector, s election.Send) {
	n.Terms.Used(s.Msg.Term, n.termsKept)
	if p := n.peer(s.To); p != nil {
		m := ballot{VIP: e.name, Msg: s.Msg}
		p.out.add(electionRecord, m.in(p.out.version))
	}
}

// termsKept is told how the reservation of a block of terms went, from any goroutine.
func (n *Node) termsKept(err error) {
	if err != nil {
		n.Log.Warn("the next terms cannot be reserved; after a crash a term could be used twice", "error", err)
	}
}

func (n *Node) letGo(e *elector) {
	var errs []error
	for _, h := range e.holders {
		errs = append(errs, h.Drop())
	}
	if err := errors.Join(errs...); err != nil {
		// Its lifetime in the kernel ends it all the same.
		n.Log.Error("the address cannot be taken away", "vip", e.name, "error", err)
	}
	if e.held {
		n.parted(e)
	}
}

// release lets go of all that is held, at the end.
func (n *Node) release() {
	if n.handed {
		return
	}
	for _, e := range n.electors {
		if e.held {
			n.letGo(e)
		}
	}
	for _, p := range n.peers {
		n.greet(n.Now(), p)
		p.out.flush()
	}
	for _, m := range n.moves {
		m.end(ErrStopped)
	}
	n.moves = nil
}
