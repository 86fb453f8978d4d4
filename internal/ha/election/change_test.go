package election

import (
	"fmt"
	"slices"
)

// What operators do to a cluster that runs: another process takes a node's place, the list of
// voters changes, an arbiter is lost.

// upgrade puts another process in the place of the running one, which knows what it knew.
// It takes a while, in which messages wait.
func (n *node) upgrade() {
	w := n.w
	if n.down || n.busy || len(n.inbox) > 0 || w.now < n.thaw {
		return
	}
	w.trace("%s is upgraded", n.conf.Self)
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
		c.Quiet = c.Quiet && !w.mutant.forgets
		if n.m = New(n.local(w.now), c); !w.mutant.forgets {
			if err := n.m.Recall(text); err != nil {
				w.fail = err.Error()
			}
		}
		n.busy = false
		n.clock()
		n.run()
	})
}

// votes reports whether the node is a voter by its own list.
func (n *node) votes() bool { return slices.Contains(n.conf.Voters, n.conf.Self) }

// revote begins to change the list of voters by one, node after node, once the change before
// is everywhere. One who comes starts last, one who goes ends first. Pairs do not take part:
// what they may do alone is no matter of majorities.
func (w *world) revote() {
	if w.changing || len(w.nodes) < 4 || !w.whole() {
		return
	}
	for _, n := range w.nodes {
		if n.down && n.votes() {
			return
		}
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
	if len(next) < 3 {
		return
	}
	w.trace("the voters become %v", next)
	w.changing = true
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
		w.at(at, func() {
			n.crash(false)
			n.conf.Voters = next
		})
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
