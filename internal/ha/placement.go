package ha

import (
	"cmp"
	"slices"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// A placement says who is the best candidate for each VIP, from all that this node knows. It
// decides who waits for whom and where a holder hands over to by itself, never who holds:
// nodes that see it differently lose time and nothing else.
type placement struct {
	n      *Node
	shared []*elector               // of VIPs that are to be spread, by name
	able   map[election.ID]bool     // could be given something now
	load   map[election.ID]int      // how many of shared it holds
	holder map[*elector]election.ID // "" if nobody is known to
}

// place orders the candidates of every VIP anew and tells the machines.
func (n *Node) place(now clock.Instant) {
	p := n.placement()
	orders := p.spread()
	for _, e := range n.electors {
		order := orders[e]
		if order == nil {
			order = n.base(e)
		}
		if !slices.Equal(order, e.order) {
			e.order = order
			n.step(now, e, election.Order{Voters: order})
		}
	}
}

// base orders the voters as candidates for e, the best first: those that prefer names, in its
// order, then the others; those that fail again and again last.
func (n *Node) base(e *elector) []election.ID {
	var prefer []string
	if e.vip != nil {
		prefer = e.vip.Prefer
	}
	order := candidates(e.name, prefer, n.Voters, n.nameOf)
	slices.SortStableFunc(order, func(a, b election.ID) int { return boolInt(n.damped(a)) - boolInt(n.damped(b)) })
	return order
}

// damped reports whether a voter fails again and again.
func (n *Node) damped(id election.ID) bool {
	if id == n.Self {
		return n.flaps.damped
	}
	p := n.peer(id)
	return p != nil && p.flaps.damped
}

func (n *Node) placement() *placement {
	p := &placement{n: n, able: map[election.ID]bool{}, load: map[election.ID]int{}, holder: map[*elector]election.ID{}}
	p.able[n.Self] = !n.Witness && n.state == Up && !n.left && !n.flaps.damped
	for _, o := range n.peers {
		p.able[o.id] = o.able() && !o.flaps.damped
	}
	for _, e := range n.electors {
		if e.vip == nil || !e.vip.Spread {
			continue
		}
		p.shared = append(p.shared, e)
		id := n.holderOf(e)
		p.holder[e] = id
		if id != "" {
			p.load[id]++
		}
	}
	slices.SortFunc(p.shared, func(a, b *elector) int { return cmp.Compare(a.name, b.name) })
	return p
}

// least returns which of those who could be given something has the fewest of the shared
// VIPs, the first of them in order; "" if there is none.
func (p *placement) least(order []election.ID, load map[election.ID]int, but election.ID) election.ID {
	best := election.ID("")
	for _, v := range order {
		if p.able[v] && v != but && (best == "" || load[v] < load[best]) {
			best = v
		}
	}
	return best
}

// spread returns the order of the candidates of each VIP that is to be spread. What is held
// stays where it is, and whoever would take it over comes next: when a holder fails, what it
// had is spread over the others. Then, if that is not even, one VIP goes to who has the
// fewest; when it is there, the next.
func (p *placement) spread() map[*elector][]election.ID {
	orders := map[*elector][]election.ID{}
	given := map[election.ID]map[election.ID]int{} // by who holds now: the load of each other without it
	for _, e := range p.shared {
		h := p.holder[e]
		if given[h] == nil {
			given[h] = map[election.ID]int{}
			for v, k := range p.load {
				given[h][v] = k
			}
		}
		base := p.n.base(e)
		next := p.least(base, given[h], h)
		given[h][next]++
		if p.able[h] {
			orders[e] = front(base, h, next)
		} else {
			orders[e] = front(base, next)
		}
	}
	if e, to := p.uneven(); e != nil {
		orders[e] = front(orders[e], to)
	}
	return orders
}

// uneven returns a VIP that should go elsewhere, and where, or nil. What an operator put
// where it is stays there, and so does what that node had before: whoever makes it uneven
// by hand wants it so.
func (p *placement) uneven() (*elector, election.ID) {
	var from election.ID
	for _, v := range slices.Sorted(slices.Values(p.n.Voters)) {
		if p.able[v] && (from == "" || p.load[v] > p.load[from]) && p.free(v) {
			from = v
		}
	}
	var which *elector
	var to election.ID
	place := 0
	for _, e := range p.shared {
		if from == "" || p.holder[e] != from {
			continue
		}
		base := p.n.base(e)
		v := p.least(base, p.load, from)
		if v == "" || p.load[from]-p.load[v] < 2 {
			continue
		}
		if at := slices.Index(base, v); which == nil || at <= place {
			which, to, place = e, v, at
		}
	}
	return which, to
}

// free reports whether VIPs may be moved away from v.
func (p *placement) free(v election.ID) bool {
	return !slices.ContainsFunc(p.shared, func(e *elector) bool { return p.holder[e] == v && p.n.chosen(e) })
}

// front returns order with some of its voters moved to the front.
func front(order []election.ID, first ...election.ID) []election.ID {
	out := make([]election.ID, 0, len(order))
	for _, list := range [][]election.ID{first, order} {
		for _, v := range list {
			if v != "" && !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// chosen reports whether e is where it is because an operator moved it there.
func (n *Node) chosen(e *elector) bool {
	if e.held {
		return e.machine.Chosen()
	}
	p := n.peer(n.holderOf(e))
	return p != nil && p.tenures[e.name].Chosen
}

// natural reports whether e, moved from one node to another by hand, is then where it would
// be by itself: a choice of an operator's that need not be remembered.
func (n *Node) natural(e *elector, from, to election.ID) bool {
	if e.vip == nil || !e.vip.Spread {
		return e.order[0] == to
	}
	p := n.placement()
	return p.load[from]-p.load[to] >= 2
}
