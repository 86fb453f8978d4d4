package upstream

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestHistogramCountsUpToEachBound(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{-time.Second, 5 * time.Millisecond, 6 * time.Millisecond, 10 * time.Second, time.Minute} {
		h.Observe(d)
	}
	r := h.Read()
	if r.Count != 5 || r.Zero != 1 || r.Classic[0] != 2 || r.Classic[1] != 3 || r.Classic[10] != 4 || r.Seconds < 70 || r.Seconds > 70.1 {
		t.Errorf("Read = %+v", r)
	}
}

// Both kinds of buckets agree with a count by hand, whatever the durations are.
func TestHistogramBucketsOfBothKindsAreExact(t *testing.T) {
	var h Histogram
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]time.Duration, 0, 3*len(bounds)+5000)
	for _, b := range bounds {
		all = append(all, b-1, b, b+1)
	}
	for len(all) < cap(all) {
		all = append(all, time.Duration(math.Exp(random.Float64()*math.Log(1e13))))
	}
	for _, d := range all {
		h.Observe(d)
	}
	r := h.Read()
	for i, bound := range bounds {
		want := uint64(0)
		for _, d := range all {
			if d <= bound {
				want++
			}
		}
		if r.Classic[i] != want {
			t.Errorf("up to %v there are %d, want %d", bound, r.Classic[i], want)
		}
	}
	sum := r.Zero
	for i, n := range r.Native {
		low, high := math.Exp2(float64(FirstNative+i-1)/perDoubling), math.Exp2(float64(FirstNative+i)/perDoubling)
		want := uint64(0)
		for _, d := range all {
			if s := d.Seconds(); s > low && s <= high {
				want++
			}
		}
		if n != want {
			t.Errorf("native bucket %d (%v to %v] has %d, want %d", FirstNative+i, low, high, n, want)
		}
		sum += n
	}
	if sum != r.Count || r.Count != uint64(len(all)) {
		t.Errorf("the buckets have %d, the count is %d, want %d", sum, r.Count, len(all))
	}
}

func TestAnExemplarBelongsToItsBucket(t *testing.T) {
	var h Histogram
	at := time.Unix(1, 0)
	h.Trace(7*time.Millisecond, "aa", at)
	h.Trace(time.Hour, "bb", at)
	r := h.Read()
	if r.Count != 2 || r.Exemplars[1] == nil || r.Exemplars[1].Trace != "aa" || r.Exemplars[11] == nil || r.Exemplars[11].Trace != "bb" || r.Exemplars[0] != nil {
		t.Errorf("Read = %+v", r)
	}
}

func TestAHistogramIsSmallUntilItIsUsedAndThenAllocatesNothing(t *testing.T) {
	var h Histogram
	if !h.Empty() {
		t.Error("a new histogram is not empty")
	}
	h.Observe(0)
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond) }); n != 0 {
		t.Errorf("Observe allocates %v times", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	for i := range b.N {
		h.Observe(time.Duration(i%1000) * time.Microsecond)
	}
}
