package election

import (
	"fmt"
	"slices"
)

// What operators do to a cluster that runs: another process takes a node's place, the list of
// voters changes, an arbiter is lost.

// upgrade puts another process in the place of the running one, which knows what it knew.
func (n *node) upgrade() {
	if n.succeeds() {
		n.w.trace("%s is upgraded", n.conf.Self)
		n.succeed(n.w.mutant.forgets)
	}
}

// succeeds reports whether something else could go on from where the machine is now.
func (n *node) succeeds() bool { return !n.down && !n.busy && len(n.inbox) == 0 && n.w.now >= n.thaw }

// succeed makes another machine go on from where that of the node is, by the list of voters
// that the node has now. It takes a while, in which messages wait.
func (n *node) succeed(forgets bool) {
	w := n.w
	text, err := n.m.Memory()
	if err != nil {
		w.fail = err.Error()
		return
	}
	n.busy, n.due = true, -1
	n.timer++
	n.live(w.upTo(lease/2), func() {
		c := n.conf
		if w.mutant.config != nil {
			w.mutant.config(w, &c)
		}
		c.Quiet = c.Quiet && !forgets
		if n.m = New(n.local(w.now), c); !forgets {
			if err := n.m.Recall(text); err != nil {
				w.fail = err.Error()
			}
		}
		n.busy = false
		n.listed = w.now
		n.clock()
		n.run()
	})
}

// votes reports whether the node is a voter by its own list.
func (n *node) votes() bool { return slices.Contains(n.conf.Voters, n.conf.Self) }

// relist gives the node another list of voters: mostly what it knows goes on, else it begins
// a quiet life.
func (n *node) relist(next []ID) {
	goesOn := n.succeeds() && n.w.r.IntN(4) > 0
	if !goesOn {
		n.crash(false)
	}
	n.conf.Voters, n.listed = next, n.w.now
	if goesOn {
		n.succeed(n.w.mutant.forgetsList)
	}
}

// settled reports whether the change of the voters before has come to every node, so long ago
// that no lease which was won by the list before it goes on.
func (w *world) settled() bool {
	for _, n := range w.nodes {
		if n.votes() && (n.down || n.busy || !sameVoters(n.m.Voters, n.conf.Voters) || n.listed > 0 && w.now-n.listed < lease+guard) {
			return false
		}
	}
	return true
}

// revote begins to change the list of voters by one, node after node, once the change before
// is everywhere. One who comes starts last, one who goes ends first.
func (w *world) revote() {
	if w.changing || len(w.nodes) < 3 || !w.whole() || !w.settled() {
		return
	}
	// The last one comes or goes, or, of five, another who stands before all the rest.
	last := w.nodes[len(w.nodes)-1]
	if len(w.nodes) == 5 && w.r.IntN(2) == 0 {
		last = w.nodes[0]
	}
	goes := last.votes()
	var next []ID
	for _, n := range w.nodes {
		if n != last && n.votes() || n == last && !goes {
			next = append(next, n.conf.Self)
		}
	}
	if len(next) < min(3, len(w.nodes)-1) {
		return
	}
	w.trace("the voters become %v", next)
	w.changing, w.paired = true, w.paired || len(next) == 2
	at := w.now
	if goes {
		last.conf.Voters = nil
		last.crash(false)
	}
	for _, i := range w.r.Perm(len(w.nodes)) {
		n := w.nodes[i]
		if n == last || !n.votes() {
			continue
		}
		at += w.upTo(2 * lease)
		w.at(at, func() { n.relist(next) })
	}
	w.at(at+1, func() {
		w.changing = false
		if !goes {
			last.conf.Voters = next
			last.start()
		}
	})
}

// forlorn looks at those of a pair that hear neither the other nor the arbiter: after a
// while they must not hold.
func (w *world) forlorn(n *node) {
	if !w.arbiter || len(w.nodes) != 2 {
		return
	}
	if other := 1 - n.i; !n.away || !w.mesh[[2]int{other, n.i}] || w.now < n.thaw {
		n.forlornAt = w.now
	}
	if n.until > w.now && w.now-n.forlornAt > (soleLeases+2)*lease && w.fail == "" {
		w.fail = fmt.Sprintf("at %v %s holds though it has reached nobody since %v", w.now, n.conf.Self, n.forlornAt)
	}
}
