package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The wheel against a list: whatever is set, moved and taken out, each wire is woken once
// its time has come, and within a tick.
func TestWheelWakesWhatIsDue(t *testing.T) {
	const tick = moment(1) << tickBits
	r := rand.New(rand.NewPCG(1, 2))
	var h wheel
	wires := make([]loopWire, 200)
	want := make(map[*loopWire]moment)
	at := moment(0)
	for range 20_000 {
		w := &wires[r.IntN(len(wires))]
		switch r.IntN(8) {
		case 0:
			h.unlink(w)
			delete(want, w)
		case 1:
			h.set(w, 0)
			delete(want, w)
		default:
			span := []time.Duration{time.Millisecond, time.Second, time.Minute}[r.IntN(3)]
			due := at + 1 + moment(r.Int64N(int64(span)))
			h.set(w, due)
			want[w] = due
		}
		if next := h.next(); len(want) > 0 && next == 0 {
			t.Fatalf("at %d: nothing is due, want %d wires some time", at, len(want))
		}
		at += moment(r.Int64N(int64(30 * time.Millisecond)))
		for w := h.pop(at); w != nil; w = h.pop(at) {
			due, set := want[w]
			if !set || due > at {
				t.Fatalf("at %d: woke a wire that is due at %d (set %t)", at, due, set)
			}
			delete(want, w)
		}
		for w, due := range want {
			if due <= at-tick {
				t.Fatalf("at %d: a wire due at %d sleeps (in the wheel: %t)", at, due, w.inWheel)
			}
		}
	}
}

// What is next is never later than what is due first.
func TestWheelNext(t *testing.T) {
	var h wheel
	var wires [50]loopWire
	var dues []moment
	for i := range wires {
		due := moment(i*i+1) * moment(40*time.Millisecond)
		h.set(&wires[len(wires)-1-i], due)
		dues = append(dues, due)
	}
	slices.Sort(dues)
	for len(dues) > 0 {
		next := h.next()
		if next == 0 || next > dues[0]+1<<tickBits {
			t.Fatalf("next = %d with %d due", next, dues[0])
		}
		for w := h.pop(next); w != nil; w = h.pop(next) {
			dues = dues[1:]
		}
	}
	if next := h.next(); next != 0 {
		t.Errorf("next = %d of an empty wheel, want 0", next)
	}
}

// A wire that is set to be due at once, by who sees to it, is woken in the next tick and
// not in the same call of pop for ever.
func TestWheelWakesOnceATick(t *testing.T) {
	const tick = moment(1) << tickBits
	var h wheel
	var w loopWire
	at := 100 * tick
	h.set(&w, at)
	for range 10 {
		if h.pop(at) != &w {
			t.Fatalf("at %d: nothing was woken", at)
		}
		h.set(&w, 1)
		if h.pop(at) != nil {
			t.Fatalf("at %d: it was woken twice", at)
		}
		at += tick
	}
}
