package upstream

import (
	"sync/atomic"
	"time"
)

// bounds are the upper ends of a Histogram's buckets.
var bounds = [...]time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// A Histogram counts durations in the buckets of METRICS.md, from 5 ms to 10 s. The
// zero value is empty; Observe and Read may run at once.
type Histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64
	nanos   atomic.Uint64
}

// Observe counts d. It allocates nothing and takes no lock.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.nanos.Add(uint64(d))
}

// Empty reports that nothing was counted yet.
func (h *Histogram) Empty() bool {
	for i := range h.buckets {
		if h.buckets[i].Load() > 0 {
			return false
		}
	}
	return true
}

// Read returns how many durations there were, their sum in seconds, and how many were
// at most as long as each bound, keyed by the bound in seconds.
func (h *Histogram) Read() (count uint64, seconds float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(bounds))
	for i := range h.buckets {
		count += h.buckets[i].Load()
		if i < len(bounds) {
			buckets[bounds[i].Seconds()] = count
		}
	}
	return count, time.Duration(h.nanos.Load()).Seconds(), buckets
}
