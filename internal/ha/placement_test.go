package ha

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
)

// spread returns VIPs v1, v2, ... that share the nodes.
func spread(n int) map[string]*config.VIP {
	vips := map[string]*config.VIP{}
	for i := range n {
		name := fmt.Sprintf("v%d", i+1)
		vips[name] = &config.VIP{Name: name, Spread: true, Preempt: config.Preempt{On: true, After: 3 * time.Second}}
	}
	return vips
}

// shares returns how many of the VIPs each host answers for; "" counts those that nobody, or
// more than one, answers for.
func (w *world) shares(vips map[string]*config.VIP) map[string]int {
	out := map[string]int{}
	for vip := range vips {
		if h := w.holders(vip); len(h) == 1 {
			out[h[0]]++
		} else {
			out[""]++
		}
	}
	return out
}

// even waits until the VIPs are shared so.
func (w *world) even(vips map[string]*config.VIP, limit time.Duration, want map[string]int) {
	w.t.Helper()
	w.until(limit, fmt.Sprintf("shares %v", want), func() bool { return maps.Equal(w.shares(vips), want) })
}

func TestSpreadVIPsShareTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := spread(2)
		w := newWorld(t, "a", "b")
		w.start("a", vips)
		w.start("b", vips)
		w.even(vips, 2*time.Second, map[string]int{"a": 1, "b": 1})
		time.Sleep(5 * time.Second)
		if len(w.moved) != 2 {
			t.Errorf("held in turn by %v, want no move after the start", w.moved)
		}
		w.kill("a")
		w.even(vips, 50*time.Millisecond, map[string]int{"b": 2})
		time.Sleep(5 * time.Second)
		began := time.Now()
		w.start("a", vips)
		w.even(vips, 10*time.Second, map[string]int{"a": 1, "b": 1})
		if took := time.Since(began); took < 3*time.Second {
			t.Errorf("spread again after %v, want 3 s of health first", took)
		}
		time.Sleep(time.Minute)
		if len(w.moved) != 4 {
			t.Errorf("held in turn by %v, want one move back", w.moved)
		}
		w.never2(t)
	})
}

func TestWhatAFailedNodeHadIsSpreadOverTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := spread(6)
		w := newWorld(t, "a", "b", "c")
		for _, n := range w.names {
			w.start(n, vips)
		}
		w.even(vips, 2*time.Second, map[string]int{"a": 2, "b": 2, "c": 2})
		time.Sleep(5 * time.Second)
		before := len(w.moved)
		w.kill("c")
		w.even(vips, 100*time.Millisecond, map[string]int{"a": 3, "b": 3})
		time.Sleep(10 * time.Second)
		if moves := len(w.moved) - before; moves != 2 {
			t.Errorf("%d moves, want only those of what c had", moves)
		}
		w.start("c", vips)
		w.even(vips, 20*time.Second, map[string]int{"a": 2, "b": 2, "c": 2})
		w.never2(t)
	})
}

func TestPreferDecidesAmongTheEquallyLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := spread(2)
		vips["v1"].Prefer, vips["v2"].Prefer = []string{"b", "a"}, []string{"a", "b"}
		w := newWorld(t, "a", "b")
		a := w.start("a", vips)
		w.even(vips, 2*time.Second, map[string]int{"a": 2})
		w.start("b", vips)
		w.held("v1", "b", 10*time.Second)
		w.held("v2", "a", 0)
		time.Sleep(beat) // until b has said so
		// An operator's choice stands, though it is not even.
		if _, err := a.Failover(t.Context(), "v1", "a", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.even(vips, 0, map[string]int{"a": 2})
		if _, err := a.Failover(t.Context(), "v1", "b", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if v, _ := a.Status(t.Context()); v.VIPs[0].Chosen {
			t.Error("v1 is said to be chosen, where it goes by itself")
		}
		w.never2(t)
	})
}

func TestUnfitNodeHasNoShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := spread(4)
		w := newWorld(t, "a", "b", "c")
		for _, n := range w.names {
			w.start(n, vips)
		}
		w.until(2*time.Second, "all held", func() bool { return w.shares(vips)[""] == 0 })
		time.Sleep(10 * time.Second)
		w.nodes["b"].SetIll(Unwell, "its data plane does not answer")
		w.even(vips, time.Second, map[string]int{"a": 2, "c": 2})
		time.Sleep(10 * time.Second)
		w.even(vips, 0, map[string]int{"a": 2, "c": 2})
		w.never2(t)
	})
}

// One that fails again and again is not given back what it had.
func TestDampedNodeIsNotPreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := public("a", "b")
		vips["public"].Preempt = config.Preempt{On: true, After: time.Second}
		w, _, b := pair(t, vips)
		for range 3 {
			w.kill("a")
			w.held("public", "b", time.Second)
			w.start("a", vips)
			w.until(5*time.Second, "given back, or not any more", func() bool {
				v, _ := b.Status(t.Context())
				return v.Nodes[1].Damped || slices.Equal(w.holders("public"), []string{"a"})
			})
			time.Sleep(2 * time.Second)
		}
		time.Sleep(2 * time.Minute)
		w.held("public", "b", 0)
		v, _ := b.Status(t.Context())
		if n := v.Nodes[1]; !n.Damped || n.Flaps < 1.5 {
			t.Errorf("b says of a: damped %v, flaps %.2f", n.Damped, n.Flaps)
		}
		time.Sleep(8 * time.Minute)
		w.held("public", "a", 0) // well for long enough
	})
}

func TestPlannedMovesAreNoFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public())
		for i := range 20 {
			to := []string{"b", "a"}[i%2]
			if _, err := a.Failover(t.Context(), "public", to, ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		for _, n := range []*host{a, b} {
			v, _ := n.Status(t.Context())
			for _, nv := range v.Nodes {
				if nv.Flaps != 0 || nv.Damped {
					t.Errorf("%s says of %s: flaps %.2f", n.name, nv.Name, nv.Flaps)
				}
			}
		}
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.kill("a")
		time.Sleep(time.Second)
		if v, _ := b.Status(t.Context()); v.Nodes[1].Flaps != 0 {
			t.Errorf("flaps of a, which left: %.2f", v.Nodes[1].Flaps)
		}
	})
}
