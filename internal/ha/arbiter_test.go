package ha

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// arbitrated starts a pair with an arbiter, of which a holds.
func arbitrated(t *testing.T) (w *world, a, b *host) {
	t.Helper()
	w = newWorld(t, "a", "b")
	w.adapt = func(name string, c *Config) {
		c.Arbiters, c.Reach = []netip.Addr{netip.MustParseAddr("10.0.0.254")}, w.reach(name)
	}
	a, b = w.start("a", public("a", "b")), w.start("b", public("a", "b"))
	w.held("public", "a", 3*time.Second)
	time.Sleep(2 * time.Second)
	return w, a, b
}

func TestNoClaimWithoutAnArbiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, b := arbitrated(t)
		w.lose("b", true)
		w.isolate("b") // its cable is out, and a goes on
		time.Sleep(10 * time.Second)
		w.held("public", "a", 0)
		if want := []string{"a"}; !slices.Equal(w.moved, want) {
			t.Errorf("held in turn by %v, want %v", w.moved, want)
		}
		v, err := b.Status(t.Context())
		if err != nil || len(v.Arbiters) != 1 || v.Arbiters[0].OK || v.Arbiters[0].Age < 9*time.Second || v.Arbiters[0].Reason != "no answer" {
			t.Errorf("b's arbiters: %+v, %v", v.Arbiters, err)
		}
		w.heal()
		w.lose("b", false)
		time.Sleep(10 * time.Second)
		w.held("public", "a", 0)
		w.never2(t)
	})
}

func TestHolderWithoutPeerAndArbiterLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := arbitrated(t)
		w.lose("a", true)
		w.isolate("a")
		if took := w.held("public", "b", time.Second); took > lease+guard+2*beat {
			t.Errorf("taken from the cut off holder after %v", took)
		}
		time.Sleep(10 * time.Second)
		w.never2(t)
		if v, _ := a.Status(t.Context()); len(v.VIPs[0].Holders) != 0 {
			t.Errorf("a says that %v hold", v.VIPs[0].Holders)
		}
		w.lose("a", false)
		w.heal()
		time.Sleep(10 * time.Second)
		w.held("public", "b", 0)
		w.never2(t)
	})
}

// One that holds alone by its permit goes when it loses the arbiter later.
func TestSoleHolderThatLosesItsArbiterLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := arbitrated(t)
		w.kill("a")
		w.held("public", "b", time.Second)
		time.Sleep(5 * time.Second)
		w.lose("b", true)
		w.until(2*time.Second, "let go", func() bool { return len(w.holders("public")) == 0 })
		time.Sleep(10 * time.Second)
		if got := w.holders("public"); len(got) != 0 {
			t.Errorf("held by %v", got)
		}
		w.lose("b", false)
		w.held("public", "b", 2*time.Second)
	})
}

func TestBothHoldNothingWhileTheArbiterIsAwayForBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := arbitrated(t)
		w.lose("a", true)
		w.lose("b", true)
		time.Sleep(10 * time.Second)
		w.held("public", "a", 0) // they hear each other, so nobody is cut off
		if v, _ := a.Status(t.Context()); v.Nodes[0].State != Unfit {
			t.Errorf("a is %v without an arbiter, want unfit", v.Nodes[0].State)
		}
		w.lose("a", false)
		w.lose("b", false)
		time.Sleep(10 * time.Second)
		if want := []string{"a"}; !slices.Equal(w.moved, want) {
			t.Errorf("held in turn by %v, want %v", w.moved, want)
		}
	})
}

func TestHolderThatReachesNoArbiterHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := arbitrated(t)
		w.lose("a", true)
		w.held("public", "b", astrayAfter+holderAfter+2*time.Second)
		w.never2(t)
	})
}
