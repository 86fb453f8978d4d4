// Package detect judges from the heartbeats of a peer whether it lives. It reads no
// clock and no socket: its owner tells it what arrived when, and that time has passed.
package detect

import (
	"math/bits"
	"time"

	"proxyd/internal/clock"
)

// misses is how many beats in a row may be missed before a peer is judged silent, with
// half an interval more for the last of them to arrive.
const misses = 6

// Limit returns the silence after which a peer that beats at the interval is judged
// silent: six missed beats and a half.
func Limit(interval time.Duration) time.Duration { return misses*interval + interval/2 }

// Peer is what is known of one peer on one carrier. Make one with New. It is not safe
// for concurrent use, and instants must not go backwards.
type Peer struct {
	interval time.Duration
	ticked   clock.Instant // when the owner last ran
	heard    clock.Instant // latest beat; valid if known
	base     clock.Instant // silence counts from here: heard, and later by own stalls
	known    bool
	silent   bool // was judged silent, and has not been heard since

	boot   uint64 // the life of the peer that seq belongs to
	seq    uint64 // highest of it
	window uint64 // bit i: seq-i has arrived
	stats  Stats
}

// Stats is what has happened since New or Reset.
type Stats struct {
	Beats      uint64        // that arrived, without doubles
	Lost       uint64        // that were sent, as later ones show, and have not arrived
	Doubled    uint64        // that arrived again, or too late to tell
	LongestGap time.Duration // between two beats, own stalls left out
	NearMisses uint64        // gaps of more than half the limit that ended before it
	Silences   uint64        // times the peer was judged silent
	Stalls     uint64        // times the owner itself did not run for more than three intervals
	LongStall  time.Duration // the longest of these
}

// Loss returns the part of the peer's beats that did not arrive, 0 to 1: the loss in
// the direction from the peer to this node.
func (s Stats) Loss() float64 {
	if s.Beats+s.Lost == 0 {
		return 0
	}
	return float64(s.Lost) / float64(s.Beats+s.Lost)
}

// New returns a Peer that beats at the interval. It is not silent before the limit has
// passed from now.
func New(now clock.Instant, interval time.Duration) *Peer {
	return &Peer{interval: interval, ticked: now, base: now}
}

// Beat takes in a beat of the peer's life boot, numbered from 1 without holes. It
// reports whether the peer is heard again after it was silent, or for the first time.
// A doubled or overtaken beat proves nothing about now and only counts.
func (p *Peer) Beat(now clock.Instant, boot, seq uint64) (back bool) {
	return p.BeatOf(now, now, boot, seq)
}

// BeatOf takes in a beat that says of its sender how it fared at the instant at, not after
// now: what counts is not that something arrives but that its sender does its work.
func (p *Peer) BeatOf(now, at clock.Instant, boot, seq uint64) (back bool) {
	p.Tick(now)
	if !p.arrived(boot, seq) || p.known && at <= p.heard || now.Sub(at) >= Limit(p.interval) {
		return false
	}
	back = !p.known || p.silent
	if p.known {
		p.gap(at.Sub(p.base))
	}
	p.known, p.silent = true, false
	p.heard, p.base = at, max(at, p.base)
	return back
}

// arrived notes the number of a beat and reports whether it is later than all others.
func (p *Peer) arrived(boot, seq uint64) bool {
	s := &p.stats
	if !p.known || boot != p.boot { // its first, whatever number it has reached
		p.boot, p.seq, p.window = boot, seq, 1
		s.Beats++
		return true
	}
	if seq > p.seq {
		n := seq - p.seq
		s.Lost += n - 1
		s.Beats++
		p.seq = seq
		if n < 64 {
			p.window = p.window<<n | 1
		} else {
			p.window = 1
		}
		return true
	}
	n := p.seq - seq
	if n >= 64 || p.window>>n&1 != 0 || n >= uint64(bits.Len64(p.window)) {
		s.Doubled++
		return false
	}
	p.window |= 1 << n
	if s.Lost > 0 { // 0 if it was counted before a Reset
		s.Lost-- // it was only late
	}
	s.Beats++
	return false
}

func (p *Peer) gap(d time.Duration) {
	p.stats.LongestGap = max(p.stats.LongestGap, d)
	if !p.silent && d > Limit(p.interval)/2 {
		p.stats.NearMisses++
	}
}

// Tick says that the owner runs. It is due at least every other interval, and what arrives
// says it too: a longer pause than three intervals is the owner's own sleep, for which no
// peer is to blame.
func (p *Peer) Tick(now clock.Instant) {
	if slept := p.slept(now); slept > 0 {
		p.base = p.base.Add(slept)
		p.stats.Stalls++
		p.stats.LongStall = max(p.stats.LongStall, now.Sub(p.ticked))
	}
	p.ticked = now
	if !p.silent && p.known && now >= p.Deadline() {
		p.silent = true
		p.stats.Silences++
	}
}

// slept returns how long of the time since the last Tick the owner was asleep.
func (p *Peer) slept(now clock.Instant) time.Duration {
	if d := now.Sub(p.ticked); d > 3*p.interval {
		return d - p.interval
	}
	return 0
}

// Silent reports whether the limit has passed without a beat, own sleep left out.
func (p *Peer) Silent(now clock.Instant) bool {
	return now >= p.Deadline().Add(p.slept(now))
}

// Deadline returns when the peer will be silent if no beat arrives.
func (p *Peer) Deadline() clock.Instant { return p.base.Add(Limit(p.interval)) }

// Heard returns when the latest beat arrived, or false if none ever did.
func (p *Peer) Heard() (clock.Instant, bool) { return p.heard, p.known }

// Stats returns what has happened so far.
func (p *Peer) Stats() Stats { return p.stats }
