package ha

import (
	"math"
	"time"

	"proxyd/internal/clock"
)

// Flaps are how often a node has lately failed: lost what it held without a plan, or became
// unfit. Each counts one, and half of the sum is forgotten every five minutes. From the third
// in a row on the node is damped: a worse candidate than any other, until the sum is small
// again. Every node counts for itself what it sees of all, itself included.
type flaps struct {
	sum    float64
	at     clock.Instant // of which sum is
	damped bool
}

const (
	flapHalf  = 5 * time.Minute
	flapLimit = 2.5  // above it the node is damped
	flapClear = 1.25 // below it the node is so no more
	// flapMost bounds the sum, and so how long a node can be damped: for a quarter of an hour.
	flapMost = 10
	// flapOnce is the time within which several signs tell of one failure.
	flapOnce = time.Second
)

// add counts a failure, unless the latest was hardly a moment ago.
func (f *flaps) add(now clock.Instant) {
	if f.at != 0 && f.sum > 0 && now.Sub(f.at) < flapOnce {
		return
	}
	f.sum, f.at = min(f.value(now)+1, flapMost), now
	f.damped = f.damped || f.sum > flapLimit
}

// value is what is left of the sum.
func (f *flaps) value(now clock.Instant) float64 {
	return f.sum * math.Exp2(-float64(now.Sub(f.at))/float64(flapHalf))
}

// rest ends the damping when its time is over, and reports whether it did.
func (f *flaps) rest(now clock.Instant) bool {
	if !f.damped || f.value(now) > flapClear {
		return false
	}
	f.damped = false
	return true
}

// flapped counts a failure of a voter.
func (n *Node) flapped(now clock.Instant, name string, f *flaps) {
	was := f.damped
	f.add(now)
	if f.damped && !was {
		n.Log.Warn("node fails again and again: others are preferred until it has been well for long", "node", name)
	}
	n.replace = true
}

// rest lets go of the dampings whose time is over.
func (n *Node) rest(now clock.Instant) {
	ended := n.flaps.rest(now)
	for _, p := range n.peers {
		ended = p.flaps.rest(now) || ended
	}
	n.replace = n.replace || ended
}
