package ha

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// step gives one event to e's machine and does what it says.
func (n *Node) step(now clock.Instant, e *elector, ev election.Event) {
	n.stage(now, e, ev)
	n.perform()
}

// stage gives one event to e's machine and leaves what it says to perform. One event may
// concern every machine, as the death of who held fifty addresses: then what is to be done
// to the addresses is done to all of them at once.
func (n *Node) stage(now clock.Instant, e *elector, ev election.Event) {
	acts := e.machine.Step(now, ev)
	n.noteRole(now, e)
	if len(acts) == 0 {
		return
	}
	if len(e.acts) == 0 {
		n.staged = append(n.staged, e)
	} else if last := len(e.acts) - 1; holds(e.acts[last]) && holds(acts[0]) {
		e.acts = e.acts[:last] // the later lease covers it
	}
	e.acts = append(e.acts, acts...)
}

func holds(a election.Action) bool {
	_, is := a.(election.Hold)
	return is
}

// perform does what the machines said: what one of them said in order, each thing finished
// before the next, and what several want done to their addresses at once.
func (n *Node) perform() {
	for len(n.staged) > 0 {
		var works []*work
		more := n.staged[:0]
		for _, e := range n.staged {
			if w := n.advance(e); w != nil {
				works = append(works, w)
			}
			if len(e.acts) > 0 {
				more = append(more, e)
			}
		}
		clear(n.staged[len(more):])
		n.staged = more
		if len(works) == 0 {
			continue
		}
		n.flush()
		together(works)
		n.finish(works)
	}
}

// advance does what e's machine said up to the first thing that is to be done to its
// addresses, which it returns, nil if there is none.
func (n *Node) advance(e *elector) *work {
	for len(e.acts) > 0 {
		var w *work
		a := e.acts[0]
		if e.acts = e.acts[1:]; len(e.acts) == 0 {
			e.acts = nil
		}
		switch a := a.(type) {
		case election.Send:
			n.post(e, a)
		case election.WantPermit:
			n.wantPermit(e, a)
		case election.Hold:
			w = n.hold(e, a)
		case election.Yield:
			w = n.yield(e, a)
		case election.Drop:
			w = n.drop(e, a.Reason)
		case election.Announce:
			w = n.announce(e)
		}
		if w != nil {
			return w
		}
	}
	return nil
}

// work is something that is to be done to the addresses of one elector.
type work struct {
	do     func() // beside the loop: it touches Holders alone
	then   func() // in the loop, when all that was done at once is done
	yields bool
}

// together does works at once, and returns when all are done.
func together(works []*work) {
	if len(works) == 1 {
		works[0].do()
		return
	}
	var all sync.WaitGroup
	for _, w := range works {
		all.Go(w.do)
	}
	all.Wait()
}

// finish takes in how works went.
func (n *Node) finish(works []*work) {
	yielded := false
	for _, w := range works {
		w.then()
		yielded = yielded || w.yields
	}
	if !yielded {
		return
	}
	// A successor must know where the older connections are before it announces: this is
	// in the frame of the waive, before that.
	for _, p := range n.peers {
		n.seats(n.Now(), p)
	}
}

// flush sends what was said before a Holder is asked: actions are done in order.
func (n *Node) flush() {
	for _, p := range n.peers {
		p.out.flush()
	}
}

// hold takes e's addresses, or goes on holding them.
func (n *Node) hold(e *elector, a election.Hold) *work {
	if e.broken || n.left {
		return nil // the machine is told, or will be at the end of this turn
	}
	n.Terms.Used(a.Term, n.termsKept)
	var sendOn func()
	if !e.held {
		n.note(Fact{Kind: FactTake, VIP: e.name, Term: a.Term})
		sendOn = n.redirect(n.Now(), e, true) // before a neighbour can know that they are here
	}
	var err error
	var failed string
	var at clock.Instant
	do := func() {
		if sendOn != nil {
			sendOn()
		}
		for i, h := range e.holders {
			if err = h.Hold(a.Until); err != nil {
				failed = e.vips[i]
				break
			}
		}
		at = n.Now()
	}
	return &work{do: do, then: func() {
		switch {
		case err != nil && n.Now() >= a.Until: // too late, by a stall; the machine lets go by itself
		case err != nil:
			n.fail(e, failed, err)
		default:
			n.took(at, e, a)
		}
	}}
}

// took notes that e's addresses are held, since or still at the instant.
func (n *Node) took(at clock.Instant, e *elector, a election.Hold) {
	e.until = a.Until
	e.term = a.Term
	if e.held {
		return
	}
	n.note(Fact{At: at, Kind: FactAnnounced, VIP: e.name, Term: a.Term})
	e.held, e.since, e.reason, e.text, e.fault = true, at, a.Reason, "", ""
	e.from = n.nameOf(e.holder)
	if a.Reason == election.Planned && e.noteAt != 0 && at.Sub(e.noteAt) < noteLife {
		e.text = e.note
	}
	e.noteAt = 0
	if n.wish.withheld != "" {
		e.text = "nobody else can hold it; this node is in " + n.wish.withheld
		n.Log.Warn("this node takes what an operator wants it not to have: nobody else can hold it", "vip", e.name, "standing", n.wish.withheld)
	}
	e.changes[e.reason]++
	c := Change{VIP: e.name, From: e.from, To: n.Name, Term: a.Term, Reason: e.reason, Text: e.text, Time: time.Now(), At: at}
	since := at
	if e.holder != "" && e.holder != n.Self {
		c.Heard, since = e.heard, e.heard
		e.tookFromTheDead(at, a.Reason)
	}
	c.Trail = n.evidence(e, since, at)
	if e.holder != "" && e.holder != n.Self {
		c.Took = at.Sub(e.heard)
	}
	e.holder = n.Self
	n.changed(c)
	n.news = true
}

// fail gives up what this host could not hold, for a while.
func (n *Node) fail(e *elector, vip string, err error) {
	now, why := n.Now(), strings.ReplaceAll(err.Error(), "\n", "; ") // several errors are a line each
	if e.fault != why {
		n.Log.Error("this node cannot hold the address", "vip", vip, "error", why)
	}
	n.note(Fact{At: now, Kind: FactFault, VIP: e.name, Term: e.term, Text: why})
	e.broken, e.retry, e.fault = true, now.Add(brokenFor), why
	n.flapped(now, n.Name, &n.flaps)
	n.news = true
	n.letGo(e)
	// The machine is in the middle of a step; settle tells it at the end of this turn.
}

// yield moves e's addresses out of sight for the one who takes them over.
func (n *Node) yield(e *elector, a election.Yield) *work {
	if !e.held {
		return nil // broken: there is nothing to move out of sight
	}
	return &work{do: func() { n.park(e, address(a.To)) }, yields: true, then: func() {
		n.parted(e)
		n.note(Fact{Kind: FactYield, VIP: e.name, Peer: n.nameOf(a.To), Term: e.term, Text: string(a.Reason)})
	}}
}

// park makes e's addresses silent, which go on accepting.
func (n *Node) park(e *elector, to netip.Addr) {
	for i, h := range e.holders {
		if err := h.Yield(to); err != nil {
			n.Log.Warn("the address does not go on accepting here", "vip", e.vips[i], "error", err)
			if err := h.Drop(); err != nil {
				n.Log.Error("the address cannot be taken away", "vip", e.vips[i], "error", err)
			}
		}
	}
}

// parted notes that e is not held any more.
func (n *Node) parted(e *elector) { e.held, n.news = false, true }

// announce says again whose e's addresses are.
func (n *Node) announce(e *elector) *work {
	if !e.held {
		return nil
	}
	return &work{do: func() {
		for i, h := range e.holders {
			if err := h.Announce(); err != nil {
				n.Log.Warn("the address cannot be announced", "vip", e.vips[i], "error", err)
			}
		}
	}, then: func() {}}
}

// drop takes e's addresses out of sight. This node lives, so whoever has them next may find
// that it does: its connections go on as after a hand-over.
func (n *Node) drop(e *elector, why election.Reason) *work {
	if !e.held {
		return nil // broken, and let go already; or drained
	}
	n.Log.Warn("the address is let go", "vip", e.name, "reason", why)
	if why == election.Isolated {
		n.flapped(n.Now(), n.Name, &n.flaps)
	}
	n.note(Fact{Kind: FactRelease, VIP: e.name, Term: e.term, Text: string(why)})
	return &work{do: func() { n.park(e, netip.Addr{}) }, then: func() { n.parted(e) }}
}
