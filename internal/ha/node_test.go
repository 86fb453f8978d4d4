package ha

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha/election"
)

func contextWithCancel(t *testing.T) (context.Context, func()) {
	ctx, cancel := context.WithCancel(t.Context())
	return ctx, cancel
}

func public(prefer ...string) map[string]*config.VIP {
	return map[string]*config.VIP{"public": {Name: "public", Prefer: prefer}}
}

// pair starts two nodes of which a holds.
func pair(t *testing.T, vips map[string]*config.VIP) (w *world, a, b *host) {
	t.Helper()
	w = newWorld(t, "a", "b")
	a, b = w.start("a", vips), w.start("b", vips)
	w.held("public", "a", 3*time.Second)
	time.Sleep(time.Second)
	return w, a, b
}

func TestOneVoterHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.start("a", public())
		if took := w.held("public", "a", time.Second); took > 5*time.Millisecond {
			t.Errorf("held after %v, want at once", took)
		}
	})
}

func TestPairStartsWithThePreferredHolder(t *testing.T) {
	for _, prefer := range []string{"a", "b"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			w.start("a", public(prefer))
			w.start("b", public(prefer))
			if took := w.held("public", prefer, 3*time.Second); took > lease+guard+4*beat {
				t.Errorf("prefer %s: held after %v", prefer, took)
			}
			time.Sleep(10 * time.Second)
			if got := w.moved; !slices.Equal(got, []string{prefer}) {
				t.Errorf("prefer %s: held in turn by %v", prefer, got)
			}
		})
	}
}

func TestKilledHolderIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, b := pair(t, public("a", "b"))
		w.kill("a")
		if took := w.held("public", "b", time.Second); took > 20*time.Millisecond {
			t.Errorf("taken after %v, want less than 20 ms", took)
		}
		changes, err := b.Changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last := changes[len(changes)-1]; last.From != "a" || last.To != "b" || last.Reason != election.NodeDead || last.Took <= 0 || last.Took > beat+20*time.Millisecond {
			t.Errorf("last change %+v", last)
		}
		time.Sleep(time.Minute)
		w.held("public", "b", 0)
		w.never2(t)
	})
}

func TestCutHolderIsReplacedAfterItsLease(t *testing.T) {
	for _, size := range []int{2, 3} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, []string{"a", "b", "c"}[:size]...)
			for _, n := range w.names {
				w.start(n, public("a", "b", "c"))
			}
			w.held("public", "a", 3*time.Second)
			time.Sleep(time.Second)
			// The cut host hears nothing on the LAN either: it lets go, or its lease lapses.
			w.deafen("a", true)
			w.isolate("a")
			took := w.held("public", "b", time.Second)
			if took > lease+guard+2*beat {
				t.Errorf("%d voters: taken after %v", size, took)
			}
			time.Sleep(5 * time.Second)
			w.deafen("a", false)
			w.heal()
			time.Sleep(5 * time.Second)
			w.held("public", "b", 0)
			w.never2(t)
		})
	}
}

// A frame of somebody may come between the peer's last word and the moment at which the
// cable is pulled. It does not show that this node is not cut off.
func TestHolderThatIsCutOffHoldsNothingWhenItsCableIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := pair(t, public("a", "b"))
		w.isolate("a")
		time.Sleep(beat / 2)
		w.deafen("a", true)
		w.held("public", "b", time.Second)
		time.Sleep(5 * time.Second)
		w.deafen("a", false)
		w.heal()
		time.Sleep(5 * time.Second)
		w.held("public", "b", 0)
		w.never2(t)
	})
}

func TestHolderThatIsCutOffAfterItWasLeftAloneLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := pair(t, public("a", "b"))
		w.kill("b")
		time.Sleep(time.Minute)
		w.held("public", "a", 0)
		w.deafen("a", true)
		w.until(2*lease+3*beat, "let go", func() bool { return len(w.holders("public")) == 0 })
		w.deafen("a", false)
		w.held("public", "a", time.Second)
	})
}

func TestNothingMovesWhenTheDeadNodeReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := pair(t, public("a", "b"))
		w.kill("a")
		w.held("public", "b", time.Second)
		time.Sleep(time.Second)
		w.start("a", public("a", "b"))
		time.Sleep(10 * time.Second)
		if want := []string{"a", "b"}; !slices.Equal(w.moved, want) {
			t.Errorf("held in turn by %v, want %v", w.moved, want)
		}
		w.never2(t)
	})
}

func TestPreemptGivesItBackToThePreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := public("a", "b")
		vips["public"].Preempt = config.Preempt{On: true, After: 3 * time.Second}
		w, _, _ := pair(t, vips)
		w.kill("a")
		w.held("public", "b", time.Second)
		w.start("a", vips)
		if took := w.held("public", "a", 10*time.Second); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("given back after %v, want 3 s", took)
		}
		w.never2(t)
	})
}

func TestFailoverMovesAndResolvesWhenItIsHeld(t *testing.T) {
	for _, asked := range []string{"a", "b"} { // the holder, or the successor
		synctest.Test(t, func(t *testing.T) {
			w, _, b := pair(t, public("a", "b"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			moved, err := w.nodes[asked].Failover(ctx, "public", "b", "kernel")
			if err != nil {
				t.Fatal(err)
			}
			w.held("public", "b", 0)
			if moved.From != "a" || moved.To != "b" || !slices.Equal(moved.VIPs, []string{"public"}) || moved.Took > beat {
				t.Errorf("asked of %s: %+v", asked, moved)
			}
			changes, _ := b.Changes(t.Context())
			last := changes[len(changes)-1]
			if last.Reason != election.Planned || last.Text != "kernel" || last.From != "a" || last.To != "b" {
				t.Errorf("asked of %s: last change %+v", asked, last)
			}
			w.never2(t)
		})
	}
}

func TestFailoverIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		refused := func(vip, to string) {
			t.Helper()
			if _, err := a.Failover(t.Context(), vip, to, ""); !errors.Is(err, ErrRefused) {
				t.Errorf("Failover(%q, %q) = %v, want refused", vip, to, err)
			}
		}
		refused("private", "")
		refused("public", "c")
		b.SetIll(Unwell, "no servers")
		time.Sleep(time.Second)
		refused("public", "b")
		refused("public", "")
		w.kill("b")
		refused("public", "b")
		if m, err := a.Failover(t.Context(), "public", "a", ""); err != nil || len(m.VIPs) != 0 {
			t.Errorf("Failover to the holder = %+v, %v", m, err)
		}
	})
}

func TestUnfitHolderGivesToTheFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		a.SetIll(Unwell, "data plane does not answer")
		w.held("public", "b", time.Second)
		b.SetIll(Unwell, "likewise")
		time.Sleep(5 * time.Second)
		w.held("public", "b", 0) // unfit, but nobody is better
		v, err := b.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if v.Nodes[1].State != Unfit || v.Nodes[1].Reason != "data plane does not answer" || v.VIPs[0].Standby {
			t.Errorf("view of b: %+v", v)
		}
		w.never2(t)
	})
}

func TestHolderThatCannotGivesToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		a, b := w.start("a", public("a", "b")), w.start("b", public("a", "b"))
		w.mu.Lock()
		a.broken = errors.New("no such device")
		w.mu.Unlock()
		w.held("public", "b", 3*time.Second)
		v, err := a.Status(t.Context())
		if err != nil || v.VIPs[0].Fault != "no such device" {
			t.Errorf("view of a: %+v, %v", v, err)
		}
		time.Sleep(2 * beat)
		if v, err := b.Status(t.Context()); err != nil || v.VIPs[0].Faults["a"] != "no such device" {
			t.Errorf("view of b: %+v, %v", v, err)
		}
		w.mu.Lock()
		a.broken = nil
		w.mu.Unlock()
		time.Sleep(brokenFor + time.Second)
		if _, err := b.Failover(t.Context(), "public", "a", "it is mended"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * beat)
		if v, err := b.Status(t.Context()); err != nil || len(v.VIPs[0].Faults) > 0 {
			t.Errorf("view of b when a holds it: %+v, %v", v, err)
		}
	})
}

func TestLeaveHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.held("public", "b", 0)
		time.Sleep(time.Second)
		if v, _ := b.Status(t.Context()); v.Nodes[1].State != Draining {
			t.Errorf("a is %v, want draining", v.Nodes[1].State)
		}
		w.kill("b")
		time.Sleep(5 * time.Second)
		if got := w.holders("public"); len(got) != 0 {
			t.Errorf("held by %v, which has left", got)
		}
		w.never2(t)
	})
}

func TestSleeperHoldsNothingWhenItWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := pair(t, public("a", "b"))
		// The loop is stopped from within, as a stopped process is; its fence ends with the lease.
		wake := make(chan struct{})
		w.mu.Lock()
		a.frozen = true
		w.mu.Unlock()
		go func() { a.calls <- func(_ clock.Instant) { <-wake } }()
		took := w.held("public", "b", time.Second)
		if took > lease+guard+2*beat {
			t.Errorf("taken from the frozen after %v", took)
		}
		time.Sleep(10 * time.Second)
		w.mu.Lock()
		a.frozen = false
		w.mu.Unlock()
		close(wake)
		time.Sleep(5 * time.Second)
		w.held("public", "b", 0)
		w.never2(t)
		if v, _ := a.Status(t.Context()); v.Stats.Stalls != 1 {
			t.Errorf("stalls = %d, want 1", v.Stats.Stalls)
		}
	})
}

// Whose interface is flushed hears the network, and nobody hears it.
func TestHolderThatLostItsOwnAddressLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost atomic.Bool
		w := newWorld(t, "a", "b")
		w.adapt = func(name string, c *Config) {
			c.Lost = func() error {
				if name == "a" && lost.Load() {
					return errors.New("no address")
				}
				return nil
			}
		}
		w.start("a", public("a", "b"))
		w.start("b", public("a", "b"))
		w.held("public", "a", 3*time.Second)
		time.Sleep(2 * time.Second)
		lost.Store(true)
		w.isolate("a")
		if took := w.held("public", "b", time.Second); took > lease+guard+2*beat {
			t.Errorf("taken from the holder without an address after %v", took)
		}
		time.Sleep(10 * time.Second)
		w.never2(t)
		lost.Store(false)
		w.heal()
		time.Sleep(10 * time.Second)
		w.held("public", "b", 0)
		w.never2(t)
	})
}

func TestLossNeverMovesAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := pair(t, public("a", "b"))
		w.mu.Lock()
		w.loss = 0.05 * 0.05 * 4 // both carriers at 5 %, with bursts
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		w.held("public", "a", 0)
		if len(w.moved) != 1 {
			t.Errorf("held in turn by %v", w.moved)
		}
		w.never2(t)
	})
}

func TestHeavyLossNeverMakesTwoHolders(t *testing.T) {
	for _, size := range []int{2, 3} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, []string{"a", "b", "c"}[:size]...)
			for _, n := range w.names {
				w.start(n, public("a", "b", "c"))
			}
			w.held("public", "a", 3*time.Second)
			w.mu.Lock()
			w.loss = 0.3 * 0.3 // both carriers at 30 %
			w.mu.Unlock()
			time.Sleep(10 * time.Minute)
			w.someone("public", time.Second)
			if len(w.moved) > 2 {
				t.Errorf("%d voters: held in turn by %v", size, w.moved)
			}
			w.never2(t)
		})
	}
}

func TestFollowersGoWithTheirLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := public("a", "b")
		vips["six"] = &config.VIP{Name: "six", Follow: "public"}
		w, a, _ := pair(t, vips)
		w.held("six", "a", 0)
		m, err := a.Failover(t.Context(), "six", "b", "")
		if err != nil || !slices.Equal(m.VIPs, []string{"public", "six"}) {
			t.Fatalf("Failover = %+v, %v", m, err)
		}
		w.held("public", "b", 0)
		w.held("six", "b", 0)
	})
}

func TestStatusTellsWhatTheNodesDoNotAgreeOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		if v, _ := a.Status(t.Context()); len(v.Problems) != 0 {
			t.Errorf("problems of a healthy pair: %v", v.Problems)
		}
		_ = b.ask(t.Context(), func(clock.Instant) { b.Hash, b.Name, b.news = "def", "a", true })
		time.Sleep(time.Second)
		v, _ := a.Status(t.Context())
		if len(v.Problems) != 2 {
			t.Errorf("problems: %q, want a doubled name and two configurations", v.Problems)
		}
		w.kill("b")
		time.Sleep(time.Second)
		v, _ = a.Status(t.Context())
		if b := v.Nodes[1]; b.State != Unheard || b.Age < time.Second || len(v.Problems) != 0 {
			t.Errorf("after b's end: %+v, %q", b, v.Problems)
		}
	})
}

func TestPreemptDoesNotUndoWhatAnOperatorChose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := public("a", "b")
		vips["public"].Preempt = config.Preempt{On: true}
		w, a, b := pair(t, vips)
		for _, asked := range []*host{a, b} { // the holder, or the successor
			if _, err := asked.Failover(t.Context(), "public", "b", "kernel"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			w.held("public", "b", 0)
			for _, n := range []*host{a, b} {
				if v, _ := n.Status(t.Context()); !v.VIPs[0].Chosen {
					t.Errorf("%s does not say that b was chosen", n.name)
				}
			}
			// Back where it goes by itself, nothing is chosen any more.
			if _, err := a.Failover(t.Context(), "public", "a", ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if v, _ := b.Status(t.Context()); v.VIPs[0].Chosen {
				t.Error("a is said to be chosen, where it goes by itself")
			}
		}
		w.never2(t)
	})
}

func TestABeatIsOneFrameToEachPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := map[string]*config.VIP{"public": {}}
		w := newWorld(t, "a", "b")
		for _, n := range w.names {
			w.start(n, vips)
		}
		holder := w.nodes[w.someone("public", time.Second)]
		time.Sleep(time.Second + beat*2/3)
		holder.SetIll(leaving, "news that do not wait for a beat")
		holder.SetIll(election.Well, "")
		time.Sleep(time.Second)
		sent := func() (n int) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, h := range w.nodes {
				n += h.mesh.sent
			}
			return n
		}
		before := sent()
		time.Sleep(100 * beat)
		if n := sent() - before; n < 2*99 || n > 2*101 {
			t.Errorf("%d frames in 100 beats of two nodes, want one of each a beat", n)
		}
	})
}
