package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

// bounds are the upper ends of a Histogram's classic buckets.
var bounds = [...]time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// A Histogram counts durations at once in the classic buckets of METRICS.md, from 5 ms
// to 10 s, and in the exponential buckets of a native histogram, four to each doubling.
// The zero value is empty and small: room is made at the first Observe. Observe and
// Read may run at once.
type Histogram struct{ cells atomic.Pointer[cells] }

// The native buckets: bucket i of the Prometheus schema 2 ends at 2^(i/4) seconds.
const (
	NativeSchema        = 2
	NativeZeroThreshold = 1.0 / (1 << 20) // about a microsecond; what is shorter counts as nothing

	perDoubling = 1 << NativeSchema
	leastNative = -20*perDoubling + 1 // the first bucket above the threshold
	mostNative  = 14 * perDoubling    // ends at 16,384 s; what is longer counts there
	natives     = mostNative - leastNative + 1
	cellCount   = 1 + natives + len(bounds)
)

// cells are the buckets of both kinds laid over each other, so that an observation is
// one count. Cell 0 is below the threshold.
type cells struct {
	count     [cellCount]atomic.Uint64
	nanos     atomic.Uint64
	exemplars [len(bounds) + 1]atomic.Pointer[Exemplar]
}

// An Exemplar is one observation by which a bucket can be understood.
type Exemplar struct {
	Trace string // its trace id, in hexadecimal
	Took  time.Duration
	At    time.Time
}

// layout says which cell is which bucket of either kind.
var layout = func() (l struct {
	first [natives]uint8         // the cell of a native bucket, or the first of two
	split [natives]time.Duration // where the second begins
}) {
	cell, next := uint8(1), 0
	for i := range natives {
		end := math.Exp2(float64(leastNative+i) / perDoubling)
		l.first[i], l.split[i] = cell, math.MaxInt64
		if next < len(bounds) && bounds[next].Seconds() <= end {
			l.split[i] = bounds[next]
			next++
			cell++
		}
		cell++
	}
	return l
}()

// native returns the place of the native bucket that holds d, from 0, or -1 below the
// threshold.
func native(d time.Duration) int {
	v := float64(d) / 1e9
	if v <= NativeZeroThreshold {
		return -1
	}
	bits := math.Float64bits(v)
	doublings := int(bits>>52) - 1023 // v is in [2^doublings, 2^(doublings+1))
	fraction := math.Float64frombits(bits&(1<<52-1) | 1023<<52)
	i := 0
	for i < perDoubling && fraction > quarters[i] {
		i++
	}
	return min(doublings*perDoubling+i-leastNative, natives-1)
}

// quarters are where the buckets of one doubling end.
var quarters = [perDoubling]float64{1, math.Exp2(0.25), math.Exp2(0.5), math.Exp2(0.75)}

// Observe counts d. It takes no lock, and allocates only at the first call.
func (h *Histogram) Observe(d time.Duration) { h.observe(max(d, 0)) }

// Trace counts d and keeps it as the exemplar of its bucket.
func (h *Histogram) Trace(d time.Duration, trace string, at time.Time) {
	d = max(d, 0)
	c := h.observe(d)
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	c.exemplars[i].Store(&Exemplar{Trace: trace, Took: d, At: at})
}

func (h *Histogram) observe(d time.Duration) *cells {
	c := h.cells.Load()
	if c == nil {
		h.cells.CompareAndSwap(nil, new(cells))
		c = h.cells.Load()
	}
	cell := uint8(0)
	if i := native(d); i >= 0 {
		cell = layout.first[i]
		if d > layout.split[i] {
			cell++
		}
	}
	c.count[cell].Add(1)
	c.nanos.Add(uint64(d))
	return c
}

// Empty reports that nothing was counted yet.
func (h *Histogram) Empty() bool { return h.cells.Load() == nil }

// A Reading is what a Histogram held at one moment.
type Reading struct {
	Count     uint64
	Seconds   float64     // their sum
	Classic   []uint64    // how many were at most as long as each of Bounds
	Exemplars []*Exemplar // of the classic buckets and, last, of what is longer; nil where there is none
	Zero      uint64      // how many were below NativeZeroThreshold
	Native    []uint64    // how many were in the native buckets from FirstNative on; nil if none
}

// FirstNative is the index, in the native schema, of Reading.Native's first bucket.
const FirstNative = leastNative

// Bounds returns the upper ends of the classic buckets, in seconds.
func Bounds() []float64 {
	all := make([]float64, len(bounds))
	for i, b := range bounds {
		all[i] = b.Seconds()
	}
	return all
}

// Read returns what was counted so far.
func (h *Histogram) Read() Reading {
	r := Reading{Classic: make([]uint64, len(bounds)), Exemplars: make([]*Exemplar, len(bounds)+1)}
	c := h.cells.Load()
	if c == nil {
		return r
	}
	r.Native = make([]uint64, natives)
	r.Zero = c.count[0].Load()
	r.Count = r.Zero
	next := 0
	for i := range r.Native {
		cell := layout.first[i]
		n := c.count[cell].Load()
		r.Native[i] = n
		r.Count += n
		if layout.split[i] != math.MaxInt64 {
			r.Classic[next] = r.Count
			next++
			n = c.count[cell+1].Load()
			r.Native[i] += n
			r.Count += n
		}
	}
	r.Seconds = time.Duration(c.nanos.Load()).Seconds()
	for i := range r.Exemplars {
		r.Exemplars[i] = c.exemplars[i].Load()
	}
	return r
}
