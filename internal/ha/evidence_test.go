package ha

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/clock"
)

// kinds lists what a change's evidence is about, in order, each once.
func kinds(c Change) []FactKind {
	var out []FactKind
	for _, f := range c.Trail {
		if !slices.Contains(out, f.Kind) {
			out = append(out, f.Kind)
		}
	}
	return out
}

func latest(t *testing.T, h *host) Change {
	t.Helper()
	changes, err := h.Changes(t.Context())
	if err != nil || len(changes) == 0 {
		t.Fatalf("changes %v, %v", changes, err)
	}
	return changes[len(changes)-1]
}

func TestAChangeCarriesItsEvidence(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(w *world)
		want  string // kinds in order; others may be between them
		least time.Duration
	}{
		{"killed", func(w *world) { w.kill("a") }, "lost claim take announced", 0},
		{"cut", func(w *world) { w.deafen("a", true); w.isolate("a") }, "ask permit lapsed claim take announced", lease + guard},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, _, b := pair(t, public("a", "b"))
			c.fault(w)
			w.held("public", "b", 2*time.Second)
			last := latest(t, b)
			w.mend("a")
			var got []string
			for _, k := range kinds(last) {
				got = append(got, string(k))
			}
			at := 0
			for _, want := range strings.Fields(c.want) {
				i := slices.Index(got[at:], want)
				if i < 0 {
					t.Fatalf("%s: evidence %v has no %s after the %d first", c.name, got, want, at)
				}
				at += i
			}
			if took := last.At.Sub(last.Heard); last.Heard == 0 || took < c.least-beat || took > c.least+2*beat {
				t.Errorf("%s: %v from the last sign of life on, want about %v", c.name, took, c.least)
			}
		})
	}
}

// mend undoes a cut, and waits until nobody asks the network for anything any more.
func (w *world) mend(name string) {
	if h := w.nodes[name]; h != nil {
		w.deafen(name, false)
		w.heal()
	}
	time.Sleep(5 * time.Second)
}

func TestTimeWithoutAHolderIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, b := pair(t, public("a", "b"))
		unheld := func() time.Duration {
			v, err := b.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return v.VIPs[0].Unheld
		}
		start := unheld()
		if start < lease || start > lease+guard+4*beat {
			t.Errorf("%v without a holder at the start", start)
		}
		time.Sleep(time.Hour)
		if got := unheld(); got != start {
			t.Errorf("%v more while it was held", got-start)
		}
		w.deafen("a", true)
		w.isolate("a")
		w.held("public", "b", 2*time.Second)
		time.Sleep(time.Minute)
		w.mend("a")
		if got := unheld() - start; got < lease+guard-beat || got > lease+guard+2*beat {
			t.Errorf("%v without a holder by a cut, want about %v", got, lease+guard)
		}
	})
}

// What it heard of the one that held before it is no sign of life of the sleeper.
func TestAHolderThatSleptDoesNotSayForHowLongNobodyHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := pair(t, public("a", "b"))
		for _, to := range []string{"b", "a"} {
			if _, err := a.Failover(t.Context(), "public", to, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		before, err := a.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.freeze(a, 10*time.Second)
		time.Sleep(time.Minute)
		after, err := a.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := after.VIPs[0].Unheld - before.VIPs[0].Unheld; got > lease+guard+2*beat {
			t.Errorf("%v without a holder, want less than %v", got, lease+guard+2*beat)
		}
		changes, err := a.Changes(t.Context())
		if err != nil || len(changes) == 0 {
			t.Fatal(changes, err)
		}
		if last := changes[len(changes)-1]; last.Heard != 0 {
			t.Errorf("a says that b took it %v after a's last sign of life, which it cannot know", last.At.Sub(last.Heard))
		}
	})
}

// freeze stops the loop of a host from within, as a stopped process is.
func (w *world) freeze(h *host, d time.Duration) {
	wake := make(chan struct{})
	w.mu.Lock()
	h.frozen = true
	w.mu.Unlock()
	go func() { h.calls <- func(_ clock.Instant) { <-wake } }()
	time.Sleep(d)
	w.mu.Lock()
	h.frozen = false
	w.mu.Unlock()
	close(wake)
}

func TestALongestGapIsForgottenAfterADay(t *testing.T) {
	var d aDay
	d.add(0, time.Second)
	d.add(1e9, 5*time.Second)
	for _, c := range []struct {
		hours float64
		want  time.Duration
	}{{1, 5 * time.Second}, {23.9, 5 * time.Second}, {26, 0}, {500, 0}} {
		if got := d.longest(clock.Instant(c.hours * float64(time.Hour))); got != c.want {
			t.Errorf("after %v h: %v, want %v", c.hours, got, c.want)
		}
	}
}
