package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

// ewma draws two servers and chooses the one that will likely answer sooner: by how long
// its answers took of late, times the exchanges it would have, for its weight. So it
// follows servers that are quicker, or slower for a while, without a look at all of them.
type ewma struct {
	slots []*slot
	draw  func() uint64
	up    atomic.Pointer[[]uint32] // places in slots of those that weigh something
}

func (r *ewma) arrange() {
	up := make([]uint32, 0, len(r.slots))
	for i, s := range r.slots {
		if s.weight.Load() > 0 {
			up = append(up, uint32(i))
		}
	}
	r.up.Store(&up)
}

func (r *ewma) choose(a Ask) *slot {
	up := *r.up.Load()
	n := uint64(len(up))
	if n == 0 {
		return nil
	}
	const tries = 4
	for range tries {
		draw := r.draw()
		i := (draw >> 32) * n >> 32
		s := r.slots[up[i]]
		if n > 1 {
			// The second is any but the first.
			j := (draw & math.MaxUint32) * (n - 1) >> 32
			if j >= i {
				j++
			}
			other := r.slots[up[j]]
			if other.cost(a.Now) < s.cost(a.Now) {
				s, other = other, s
			}
			if s.take(a) {
				return s
			}
			s = other
		}
		if s.take(a) {
			return s
		}
	}
	return takeFrom(r.slots, r.draw(), a)
}

// cost is how many seconds one more exchange would take if the server had to answer all
// that it has one after the other, for a weight of 1. A server of which nothing is known
// yet is asked at once, but by one exchange at a time.
func (s *slot) cost(now time.Time) float64 {
	latency, known := s.latency.at(now)
	active := s.Active.Load()
	if !known {
		if active == 0 {
			return 0
		}
		return math.Inf(1)
	}
	return latency.Seconds() * float64(active+1) * unit / float64(max(s.weight.Load(), 1))
}

// A peak is a moving average of durations that follows a longer one at once and forgets
// it slowly (Finagle's peak EWMA). The zero value knows nothing. Its word holds a float32
// of seconds and the time in milliseconds, so that many may learn at once without a lock.
type peak struct{ word atomic.Uint64 }

// forget is the time constant: after it, without anything learnt, a peak is 1/e.
const forget = 10 * time.Second

// at returns the average as of now, and whether anything was learnt.
func (p *peak) at(now time.Time) (d time.Duration, known bool) {
	word := p.word.Load()
	if word == 0 {
		return 0, false
	}
	value, age := unpack(word, now)
	return time.Duration(value * math.Exp(-float64(age)/float64(forget)) * float64(time.Second)), true
}

// learn takes in a duration.
func (p *peak) learn(now time.Time, d time.Duration) {
	for {
		word := p.word.Load()
		value := max(d, time.Microsecond).Seconds()
		if word != 0 {
			old, age := unpack(word, now)
			if keep := math.Exp(-float64(age) / float64(forget)); value < old {
				value = old*keep + value*(1-keep)
			}
		}
		if p.word.CompareAndSwap(word, pack(value, now)) {
			return
		}
	}
}

// reset forgets all.
func (p *peak) reset() { p.word.Store(0) }

func pack(seconds float64, now time.Time) uint64 {
	return uint64(math.Float32bits(float32(seconds)))<<32 | uint64(uint32(now.UnixMilli()))
}

// unpack returns the value and how long ago it was learnt; a little later than now, as
// readings of the clock may be, is now.
func unpack(word uint64, now time.Time) (seconds float64, age time.Duration) {
	ms := int32(uint32(now.UnixMilli()) - uint32(word))
	return float64(math.Float32frombits(uint32(word >> 32))), time.Duration(max(ms, 0)) * time.Millisecond
}
