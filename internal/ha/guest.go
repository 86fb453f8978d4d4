package ha

import (
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// A guest is an elector for a VIP of another node that this node's configuration does not
// have: a witness has none of its own, and a node whose file is a moment older has not yet.
// It votes, so that an election needs the voters and not their files.

// maxGuests bounds them.
const maxGuests = 256

// guestLife is how long a guest is kept after the last message of its election: longer
// than any promise.
const guestLife = time.Minute

// guest returns the elector for a VIP that another node named, which is made if this
// node's configuration has none. It returns nil if there are too many.
func (n *Node) guest(now clock.Instant, vip string) *elector {
	if e := n.byVIP[vip]; e != nil {
		return e
	}
	guests := 0
	for _, e := range n.electors {
		guests += boolInt(e.vip == nil)
	}
	if vip == "" || guests >= maxGuests {
		return nil
	}
	e := &elector{name: vip, vips: []string{vip}, polled: now, changes: map[election.Reason]uint64{}}
	n.enter(now, e)
	n.electors = append(n.electors, e)
	n.byVIP[vip] = e
	return e
}

// forget drops guests whose elections have ended.
func (n *Node) forget(now clock.Instant) {
	n.electors = slices.DeleteFunc(n.electors, func(e *elector) bool {
		over := e.vip == nil && now.Sub(e.polled) > max(guestLife, 2*(n.Timing.Lease+n.Timing.Guard))
		if over {
			if n.byVIP[e.name] == e {
				delete(n.byVIP, e.name)
			}
			for _, p := range n.peers {
				delete(p.tenures, e.name)
			}
		}
		return over
	})
}
