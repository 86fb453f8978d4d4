package ha

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha/election"
)

// Reconfigure gives this node other VIPs while it runs, with a Holder for each that this host
// can hold. Those that stay as they are notice nothing. One that is gone is let go, and the
// node goes on voting for it while others have it; one that is new is claimed by whoever of
// those that have it is the best. When it returns nil, the Holders that are not given any more
// hold nothing and are the caller's to close; when it returns an error, all is as before.
func (n *Node) Reconfigure(ctx context.Context, vips map[string]*config.VIP, holders map[string]Holder, hash string) error {
	var refused error
	err := n.ask(ctx, func(now clock.Instant) { refused = n.adopt(now, vips, holders, hash) })
	if err != nil {
		return err
	}
	return refused
}

func (n *Node) adopt(now clock.Instant, vips map[string]*config.VIP, holders map[string]Holder, hash string) error {
	for _, name := range slices.Sorted(maps.Keys(vips)) {
		if was := n.VIPs[name]; was != nil && was.Follow != vips[name].Follow {
			return fmt.Errorf("%w: vip.%s: follow cannot change while proxyd runs, for its address would change elections; "+
				"take the VIP out, reload every node, and add it again", ErrRefused, name)
		}
	}
	groups, err := groups(vips)
	if err != nil {
		return err
	}
	n.VIPs, n.Holders, n.Hash, n.news = vips, holders, hash, true
	for _, e := range slices.Clone(n.electors) {
		if e.vip != nil && groups[e.name] == nil {
			n.dismiss(now, e)
		}
	}
	for _, leader := range slices.Sorted(maps.Keys(groups)) {
		n.equip(now, leader, groups[leader])
	}
	return nil
}

// groups returns the VIPs that share an election by the one that leads, which comes first, so
// that it is announced first.
func groups(vips map[string]*config.VIP) (map[string][]string, error) {
	out := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(vips)) {
		if vips[name].Follow == "" {
			out[name] = append([]string{name}, out[name]...)
			continue
		}
		leader := name
		for hops := 0; vips[leader] != nil && vips[leader].Follow != ""; hops++ {
			if hops > len(vips) {
				return nil, fmt.Errorf("vip.%s follows in a circle", name)
			}
			leader = vips[leader].Follow
		}
		if vips[leader] == nil {
			return nil, fmt.Errorf("vip.%s follows %q, which there is not", name, leader)
		}
		out[leader] = append(out[leader], name)
	}
	return out, nil
}

// dismiss lets go of a VIP that the configuration has no more. Its elector stays as a guest:
// it keeps what it promised.
func (n *Node) dismiss(now clock.Instant, e *elector) {
	n.Log.Info("VIP taken out", "vip", e.name, "held", e.held)
	n.step(now, e, election.Wish{Witness: true})
	n.letGo(e) // what is parked too
	for _, name := range e.vips {
		delete(n.byVIP, name)
	}
	e.vip, e.vips, e.holders = nil, []string{e.name}, nil
	e.deaf, e.broken, e.fault, e.polled = false, false, "", now
	n.byVIP[e.name] = e
	n.replace = true
}

// equip makes the elector of a VIP that leads be as the configuration has it.
func (n *Node) equip(now clock.Instant, leader string, names []string) {
	e := n.byVIP[leader]
	if e == nil || e.name != leader {
		e = &elector{name: leader, changes: map[election.Reason]uint64{}}
		n.electors = append(n.electors, e)
	}
	before := map[string]Holder{}
	for i, name := range e.vips {
		if n.byVIP[name] == e {
			delete(n.byVIP, name)
		}
		if len(e.holders) > i {
			before[name] = e.holders[i]
		}
	}
	e.vip, e.vips, e.holders = n.VIPs[leader], names, nil
	for _, name := range names {
		n.supplant(name)
		n.byVIP[name] = e
		if h := n.Holders[name]; h != nil {
			e.holders = append(e.holders, h)
		}
	}
	if len(e.holders) != len(names) {
		e.holders = nil
	}
	if e.machine == nil {
		n.enter(now, e)
	} else {
		n.step(now, e, election.Wish{Preempt: preempt(e.vip), Witness: len(e.holders) == 0})
	}
	if e.held {
		n.exchange(e, before)
	}
	for name, h := range before {
		if !slices.Contains(e.holders, h) {
			if err := h.Drop(); err != nil {
				n.Log.Error("the address cannot be taken away", "vip", name, "error", err)
			}
		}
	}
	n.replace = true
}

// supplant forgets a guest of a name that a VIP of this node now has.
func (n *Node) supplant(name string) {
	if g := n.byVIP[name]; g != nil && g.vip == nil {
		n.electors = slices.DeleteFunc(n.electors, func(e *elector) bool { return e == g })
	}
}

// exchange holds by the Holders that e has now what it held by those before.
func (n *Node) exchange(e *elector, before map[string]Holder) {
	for i, h := range e.holders {
		if before[e.vips[i]] == h {
			continue
		}
		if err := h.Hold(e.until); err != nil {
			n.fail(e, e.vips[i], err)
			return
		}
	}
}

// MayVote reports why the list of voters must not become next now, or nil. Any majority of a
// list and any of one that differs by a single voter have a voter in common; of lists that
// differ by two they need not. So a change begins when the one before has come to all. Of a
// pair the half that is lost may be replaced in one: every majority of either list is both of
// it, and has the survivor.
//
// It waits, up to ctx's end, for the change before to be old enough.
func (n *Node) MayVote(ctx context.Context, next []election.ID) error {
	for {
		var refused error
		var wait time.Duration
		if err := n.ask(ctx, func(now clock.Instant) { wait, refused = n.mayVote(now, next) }); err != nil {
			return err
		}
		if wait <= 0 {
			return refused
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w: cluster.join: the change of the voters before this one is too young: %w", ErrRefused, ctx.Err())
		}
	}
}

// mayVote returns why not, or for how long still not: nodes that take over what they know with
// another list keep the leases that they won by the one before, for a lease at the most. Such
// a lease and one by next need not have a voter in common.
func (n *Node) mayVote(now clock.Instant, next []election.ID) (wait time.Duration, refused error) {
	added, removed := lacking(next, n.Voters), lacking(n.Voters, next)
	if len(added)+len(removed) > 1 && !n.replacesLost(next, removed) {
		return 0, fmt.Errorf("%w: cluster.join: one node at a time: adds %v and removes %v at once, so that the nodes with the old list and those "+
			"with the new could each elect a holder; change one, reload every node, then change the next", ErrRefused, added, removed)
	}
	young := n.listed
	for _, p := range n.peers {
		switch {
		case slices.Contains(removed, p.id):
			continue
		case !p.alive:
			return 0, fmt.Errorf("%w: cluster.join: %s is not heard (%s): what it does with the old list is not known; wait for it, or take it out first",
				ErrRefused, n.nameOf(p.id), p.why)
		case p.hello.Voters == fingerprint(next):
			continue // it has looked at the same
		case p.hello.Voters != fingerprint(n.Voters):
			return 0, fmt.Errorf("%w: cluster.join: %s has yet another list: the change before this one has not come to it; reload it first", ErrRefused, n.nameOf(p.id))
		}
		young = max(young, p.listed)
	}
	return young.Add(n.Timing.Lease + n.Timing.Guard).Sub(now), nil
}

// replacesLost reports whether next puts another in the place of a pair's lost half.
func (n *Node) replacesLost(next, removed []election.ID) bool {
	if len(n.Voters) != 2 || len(next) != 2 || len(removed) != 1 {
		return false
	}
	p := n.peer(removed[0])
	return p != nil && !p.alive
}

// lacking returns those of a that are not in b.
func lacking(a, b []election.ID) []election.ID {
	return slices.DeleteFunc(slices.Clone(a), func(v election.ID) bool { return slices.Contains(b, v) })
}
