package ha

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"proxyd/internal/clock"
)

// An arbiter is a host that is no node, such as the gateway: whoever reaches it is not cut
// off. Of two voters, one that hears nothing of the other holds only while an arbiter
// answers it. That is a permit and no vote, since an arbiter may answer both.
type arbiter struct {
	addr   netip.Addr
	asking bool
	asked  clock.Instant // when it was last begun to ask
	heard  clock.Instant // when it last answered; 0: never
	since  clock.Instant // since when it has answered without a miss
	why    error         // why it did not answer, the last time; nil if it did
}

// ArbiterView is what is known of one arbiter.
type ArbiterView struct {
	Addr   netip.Addr
	OK     bool          // it answered when it was last asked
	Age    time.Duration // since it last answered; -1 never
	Reason string        // why it is not ok
}

// askEvery is how often an arbiter is asked while the other nodes are heard. While they
// are not it is asked twice a lease.
const askEvery = time.Second

// askTime is how long one asking may take.
func (n *Node) askTime() time.Duration { return 2*n.Timing.Heartbeat - n.Timing.Heartbeat/4 }

// askPause is the time from the begin of one asking to that of the next.
func (n *Node) askPause() time.Duration {
	if n.lonely() {
		return max(n.Timing.Lease/2, n.askTime())
	}
	return max(askEvery, n.askTime())
}

// lonely reports whether there are two voters and the other is not heard.
func (n *Node) lonely() bool { return len(n.peers) == 1 && !n.peers[0].alive }

// askArbiters asks, beside the loop, each arbiter that is due.
func (n *Node) askArbiters(now clock.Instant) {
	for _, a := range n.arbiters {
		if a.asking || a.asked != 0 && now.Sub(a.asked) < n.askPause() {
			continue
		}
		a.asking, a.asked = true, now
		go func() { // ends after askTime, or with the loop
			ctx, cancel := context.WithTimeout(n.life, n.askTime())
			defer cancel()
			err := n.Reach(ctx, a.addr)
			n.tell(func(now clock.Instant) {
				a.asking = false
				n.answered(now, a, err)
			})
		}()
	}
}

// answered takes in how an asking ended.
func (n *Node) answered(now clock.Instant, a *arbiter, err error) {
	if (err == nil) != (a.why == nil) {
		if err == nil {
			n.Log.Info("arbiter answers", "address", a.addr)
		} else {
			n.Log.Warn("arbiter does not answer", "address", a.addr, "error", err)
		}
	}
	if err == nil {
		if a.why != nil || a.heard == 0 {
			a.since = now
		}
		a.heard = now
	}
	a.why = err
}

// anyArbiter asks all arbiters at once and reports whether one answered within d. It
// blocks, and says so by true where there is none.
func (n *Node) anyArbiter(d time.Duration) bool {
	if len(n.arbiters) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(n.life, d)
	defer cancel()
	answers := make(chan error, len(n.arbiters))
	for _, a := range n.arbiters {
		go func() { answers <- n.Reach(ctx, a.addr) }() // ends within d
	}
	for range n.arbiters {
		if <-answers == nil {
			return true
		}
	}
	return false
}

// unreached reports whether no arbiter has answered for d, though all were asked.
func (n *Node) unreached(now clock.Instant, d time.Duration) bool {
	for _, a := range n.arbiters {
		if a.why == nil || now.Sub(max(a.heard, n.born)) < d {
			return false
		}
	}
	return len(n.arbiters) > 0
}

// A node that hears the others and no arbiter is a bad holder: its clients may come the way
// that is broken.
const (
	// It takes the holder longer to say so than the others: when the arbiter is away for
	// all, nothing must move.
	astrayAfter = 3 * askEvery
	holderAfter = 2 * askEvery
	// foundAfter is how long an arbiter must have answered a node that holds nothing before
	// it is fit again: when the arbiter was away for all, the holder is the first to be well.
	foundAfter = 3 * askEvery
)

// astray reports whether this node has not reached an arbiter for long, or hardly does again.
func (n *Node) astray(now clock.Instant) bool {
	holds := slices.ContainsFunc(n.electors, func(e *elector) bool { return e.held })
	after := astrayAfter
	if holds {
		after += holderAfter
	}
	if n.unreached(now, after) {
		n.strayed = true
	} else if n.strayed {
		n.strayed = !slices.ContainsFunc(n.arbiters, func(a *arbiter) bool {
			return a.why == nil && (holds || now.Sub(a.since) >= foundAfter)
		})
	}
	return n.strayed
}

func (n *Node) arbiterViews(now clock.Instant) []ArbiterView {
	var out []ArbiterView
	for _, a := range n.arbiters {
		v := ArbiterView{Addr: a.addr, OK: a.heard != 0 && a.why == nil, Age: -1}
		if a.heard != 0 {
			v.Age = max(now.Sub(a.heard), 0)
		}
		if a.why != nil {
			v.Reason = a.why.Error()
		}
		out = append(out, v)
	}
	return out
}
