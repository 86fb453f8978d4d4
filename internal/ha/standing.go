package ha

import (
	"context"
	"math/rand/v2"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// A standing is what operators want of this node's part, beside what it could do.
type standing struct {
	withheld string       // why it must not hold; "": it may
	last     bool         // of withheld: it holds all the same where nobody else can
	paused   bool         // nothing moves by preference or fitness
	leaving  bool         // it hands over for the end of the process
	ill      election.Ill // what SetIll said
	why      string       // likewise
}

// Withhold keeps this node from holding anything, for the reason given, until it is called
// with "". What it holds it hands over to the best fit other node; where there is none it
// goes on until there is one, for an outage is nobody's wish. It votes as before. With last
// it takes an address all the same when nobody else can hold it, and gives it to the first
// that can again.
func (n *Node) Withhold(reason string, last bool) {
	_ = n.ask(context.Background(), func(now clock.Instant) {
		if n.wish.withheld == reason && n.wish.last == last {
			return
		}
		begins := n.wish.withheld == ""
		n.wish.withheld, n.wish.last = reason, last
		n.restate(now)
		if !begins || reason == "" {
			return
		}
		m := &move{id: rand.Uint64(), text: reason, done: make(chan error, 1)}
		for _, e := range n.electors {
			if !e.held {
				continue
			}
			e.ceding = true
			if to, ok := e.machine.Successor(""); ok {
				m.steps = append(m.steps, step{elector: e, from: n.Self, to: to})
			}
		}
		if len(m.steps) > 0 {
			n.begin(now, m)
		}
	})
}

// Pause stops, or lets happen again, the moves that are decided by preference and fitness.
// One who falls silent is replaced all the same, and what an operator asks for is done.
func (n *Node) Pause(on bool) {
	_ = n.ask(context.Background(), func(clock.Instant) {
		if n.wish.paused != on {
			n.wish.paused = on
			n.Log.Info("automatic moves", "paused", on)
		}
	})
}

// leaves is the reason of a node that ends.
const leaves = "it leaves"

// restate works out what this node says of itself.
func (n *Node) restate(now clock.Instant) {
	w := &n.wish
	state, reason, ill := Up, "", election.Well
	if w.ill != election.Well {
		state, reason, ill = Unfit, w.why, w.ill
	}
	if n.astray(now) && ill < stray {
		state, reason, ill = Unfit, "no arbiter answers", stray
	}
	if w.leaving {
		state, reason, ill = Draining, leaves, going
	} else if w.withheld != "" {
		state, reason, ill = Draining, w.withheld, max(ill, leaving)
		if w.last {
			ill = max(ill, drained)
		}
	}
	other := n.state != state || n.ill != ill
	n.ill = ill
	if !other && n.reason == reason {
		return
	}
	if n.state == Up && state == Unfit {
		n.flapped(now, n.Name, &n.flaps)
	}
	if other {
		n.Log.Info("fitness of this node", "state", state, "ill", ill, "reason", reason)
		n.noteFitness(state, reason)
	}
	n.state, n.reason, n.news = state, reason, true
}

// withheld reports whether e must not be held here by an operator's wish. A hand-over
// that it began is let end first.
func (n *Node) withheld(e *elector) bool {
	if n.wish.withheld == "" || n.wish.last {
		e.ceding = false
		return false
	}
	if e.ceding && !e.held {
		holder := n.holderOf(e)
		e.ceding = holder == "" || holder == n.Self
	}
	return !e.held && !e.ceding
}

// pause tells e's machine whether it may move the address by itself; what that says is
// left to perform.
func (n *Node) pause(now clock.Instant, e *elector) {
	// One who is to give away what it holds does so as soon as somebody is fit.
	if on := n.wish.paused && n.wish.withheld == ""; on != e.paused {
		e.paused = on
		n.stage(now, e, election.Pause{On: on})
	}
}
