package ha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

// Config is what a Node must know.
type Config struct {
	Self    election.ID   // as Identify finds it; any text on a node without a cluster
	Voters  []election.ID // as Voters makes them; empty means Self alone
	Timing  config.Timing
	VIPs    map[string]*config.VIP
	Mesh    Mesh              // nil if Self is the only voter
	Witness bool              // this node votes and never holds
	Holders map[string]Holder // by VIP; one that has none here is voted for and never held here
	Now     func() clock.Instant
	Log     *slog.Logger

	Name    string // of this host; what prefer means
	Version string
	Hash    string // of the configuration
	Uptime  func() time.Duration
	Wire    wire.Range // versions of what nodes send each other; zero: what this program speaks

	// Arbiters are hosts of which one must answer a node of two that wants to hold alone.
	// Reach returns nil if the host gave any sign of life before ctx ended.
	Arbiters []netip.Addr
	Reach    func(ctx context.Context, a netip.Addr) error
	// Lost, if set, says why this host has not the address of Self any more, nil if it has.
	// Without it no voter hears this node, which proves nothing about them.
	Lost func() error

	Terms *Terms // nil keeps none
	Term  uint64 // the term above which this life starts, as OpenTerms returned it

	// OnChange, if set, is told each change of a holder that this node sees. It is called
	// by the loop and must not block.
	OnChange func(Change)
	// OnFact, if set, is told what this node meets beside the changes. It is called by the
	// loop and must not block.
	OnFact func(Fact)
}

// ErrStopped is returned by what asks a Node that does not run (yet, or any more).
var ErrStopped = errors.New("the cluster part of this node is not running")

// A Node is this host's part in the cluster. Make one with New, then Run it.
//
// One goroutine, Run's, owns all that is in it; the methods ask that goroutine.
type Node struct {
	Config
	calls   chan func(now clock.Instant)
	permits chan permit
	done    chan struct{}   // closed when Run has returned
	life    context.Context // Run's

	// What follows belongs to Run's goroutine.
	born     clock.Instant // when this life began: New, then Run
	knows    clock.Instant // since when it could hear who holds: it began, or woke
	listed   clock.Instant // since when it has its list of voters
	electors []*elector
	staged   []*elector          // those with something for perform
	byVIP    map[string]*elector // also those that follow
	arbiters []*arbiter
	peers    []*peer // sorted by id
	state    State
	reason   string
	ill      election.Ill // how unfit, in the state Unfit
	wish     standing
	strayed  bool          // no arbiter was reached for long
	handed   bool          // another process goes on from here
	left     bool          // Leave is done: this node votes and never holds again
	seq      uint64        // of the latest hello
	news     bool          // the hello changed: say so at once
	replace  bool          // something changed by which candidates are ordered
	flaps    flaps         // our own
	asleep   clock.Instant // until when our own sleep makes us deaf; 0: it does not
	turned   clock.Instant // when the latest turn of the loop began
	moves    []*move
	history  history
	trail    []Fact // the latest, as evidence
	stats    Stats
	records  [256]uint64 // that came, by kind
	mesh     <-chan MeshEvent
	timer    *time.Timer
}

// New returns a node that starts silent: an earlier life of it may have promised.
func New(c Config) (*Node, error) {
	if len(c.Voters) == 0 {
		c.Voters = []election.ID{c.Self}
	}
	if !slices.Contains(c.Voters, c.Self) {
		return nil, fmt.Errorf("%s is not one of the voters %v", c.Self, c.Voters)
	}
	if len(c.Voters) > 1 && c.Mesh == nil {
		return nil, errors.New("several voters and no mesh between them")
	}
	c.Wire = c.Wire.Or()
	if c.Terms == nil {
		c.Terms = new(Terms)
	}
	if c.Uptime == nil {
		born := c.Now()
		c.Uptime = func() time.Duration { return c.Now().Sub(born) }
	}
	n := &Node{
		Config:  c,
		born:    c.Now(),
		calls:   make(chan func(clock.Instant)),
		permits: make(chan permit),
		done:    make(chan struct{}),
		byVIP:   map[string]*elector{},
	}
	n.listed = n.born
	for _, v := range slices.Sorted(slices.Values(c.Voters)) {
		if v != c.Self {
			n.peers = append(n.peers, n.newPeer(v))
		}
	}
	for _, a := range c.Arbiters {
		n.arbiters = append(n.arbiters, &arbiter{addr: a})
	}
	if err := n.adopt(n.born, c.VIPs, c.Holders, c.Hash); err != nil {
		return nil, err
	}
	return n, nil
}

// Run takes part in the cluster until ctx ends or the mesh is closed. When it returns,
// no address is held; one that was handed over may still accept. To leave without a gap
// call Leave first.
func (n *Node) Run(ctx context.Context) error {
	n.life = ctx
	defer close(n.done)
	defer n.release()
	if n.Mesh != nil {
		n.mesh = n.Mesh.Events()
	}
	n.timer = time.NewTimer(0)
	defer n.timer.Stop()
	now := n.Now()
	n.turned, n.born, n.knows = now, now, now
	n.start(now)
	for {
		n.timer.Reset(n.wake(now).Sub(now))
		var call func(clock.Instant)
		var heard []MeshEvent
		var may *permit
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-n.mesh:
			if !open {
				return errors.New("the mesh is closed")
			}
			heard = n.more(e)
		case call = <-n.calls:
		case p := <-n.permits:
			may = &p
		case <-n.timer.C:
		}
		now = n.Now()
		n.awake(now)
		n.turned = now
		for _, e := range heard {
			n.hear(now, e)
		}
		n.perform()
		if may != nil {
			n.permit(now, *may)
		}
		if call != nil {
			call(now)
		}
		if n.handed {
			return nil
		}
		n.tick(now)
		n.settle(now)
		n.speak(now)
		now = n.Now()
	}
}

// more takes what else waits in the mesh, so that one turn answers all of it with one
// frame to each peer. It is bounded: the timers must have their turn.
func (n *Node) more(first MeshEvent) []MeshEvent {
	out := []MeshEvent{first}
	for len(out) < 256 {
		select {
		case e, open := <-n.mesh:
			if !open {
				return out // the next turn sees it closed
			}
			out = append(out, e)
		default:
			return out
		}
	}
	return out
}

// wake returns when the loop must come round though nothing happens.
func (n *Node) wake(now clock.Instant) clock.Instant {
	at := now.Add(n.Timing.Heartbeat)
	for _, e := range n.electors {
		at = min(at, e.machine.Deadline())
		if e.broken {
			at = min(at, e.retry)
		}
	}
	for _, p := range n.peers {
		at = min(at, p.beatAt)
	}
	return max(at, now)
}

// awake finds out whether this node slept. The loop comes round once a beat, so when it
// is a whole lease late, whatever it held has lapsed and whatever it knows is old.
func (n *Node) awake(now clock.Instant) {
	late := now.Sub(n.turned) - n.Timing.Heartbeat
	n.stats.LongestStall = max(n.stats.LongestStall, late)
	if late <= n.Timing.Lease {
		return
	}
	n.stats.Stalls++
	n.note(Fact{At: now, Kind: FactStall, For: late})
	n.knows = now
	n.Log.Warn("this node was asleep", "for", late.Round(time.Millisecond), "lease", n.Timing.Lease)
	n.tick(now) // leases lapse before anything else is believed
	if len(n.peers) > 0 {
		// What the others said meanwhile waits in our own sockets: their silence means
		// nothing until one of them is heard, or had the time to be.
		n.asleep = now.Add(n.Timing.Lease + n.Timing.Guard)
		n.judge(now)
	}
}

// tick gives each machine its time.
func (n *Node) tick(now clock.Instant) {
	if n.asleep != 0 && now >= n.asleep {
		n.asleep = 0
	}
	n.askArbiters(now)
	n.forget(now)
	for _, e := range n.electors {
		if e.broken && now >= e.retry {
			e.broken = false
		}
		n.listen(now, e)
		if now >= e.machine.Deadline() {
			n.stage(now, e, election.Tick{})
		}
	}
	n.perform()
}

// speak sends what the turn produced, with the hello where a beat is due.
func (n *Node) speak(now clock.Instant) {
	if n.news {
		n.seq++
	}
	for _, p := range n.peers {
		if n.news || now >= p.beatAt || len(p.out.buf) > 0 && now.Sub(p.beaten) >= n.Timing.Heartbeat*3/4 {
			n.greet(now, p)
		}
		p.out.flush()
	}
	n.news = false
}

// ask runs f in the loop and waits until it has been done.
func (n *Node) ask(ctx context.Context, f func(now clock.Instant)) error {
	did := make(chan struct{})
	select {
	case n.calls <- func(now clock.Instant) { defer close(did); f(now) }:
		<-did // the loop took it, and no call waits for anything
		return nil
	case <-n.done:
		return ErrStopped
	case <-ctx.Done():
		return fmt.Errorf("ask the cluster's loop: %w", ctx.Err())
	}
}

// tell has the loop run f, unless it has ended. It is for goroutines beside the loop.
func (n *Node) tell(f func(now clock.Instant)) {
	select {
	case n.calls <- f:
	case <-n.done:
	}
}

// SetIll says how far this host is from being one that could serve if it held the
// addresses, and why: Well, 1 to 99 for less fit than it should be, and from Unwell on for
// one that could not. An ill node hands over to one that is less so, if there is one.
func (n *Node) SetIll(ill election.Ill, reason string) {
	_ = n.ask(context.Background(), func(now clock.Instant) {
		n.wish.ill, n.wish.why = ill, reason
		n.restate(now)
	})
}

// judge tells the machines what this node can do, where that has changed.
func (n *Node) judge(now clock.Instant) {
	n.restate(now)
	for _, e := range n.electors {
		n.pause(now, e)
		if ill := n.illness(e); ill != e.ill {
			e.ill = ill
			n.stage(now, e, election.Fitness{Ill: ill})
		}
		// A deaf node votes and must not hold; the same goes for one that has left, or that
		// an operator withholds.
		if deaf := n.left || n.asleep != 0 || e.deaf || n.withheld(e); deaf != e.barred {
			e.barred = deaf
			n.stage(now, e, election.Deaf{Deaf: deaf})
		}
	}
	n.perform()
}
