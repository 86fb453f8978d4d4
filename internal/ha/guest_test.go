package ha

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
)

// watched starts two nodes and a witness, which has no VIP in its file.
func watched(t *testing.T) (w *world, witness *host) {
	t.Helper()
	w = newWorld(t, "a", "b", "w")
	w.adapt = func(name string, c *Config) { c.Witness = name == "w" }
	w.start("a", public("a", "b"))
	w.start("b", public("a", "b"))
	witness = w.start("w", nil)
	w.held("public", "a", 3*time.Second)
	time.Sleep(time.Second)
	return w, witness
}

func TestWitnessIsAVoteAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, witness := watched(t)
		v, err := witness.Status(t.Context())
		if err != nil || !v.Nodes[0].Witness || len(v.VIPs) != 1 || v.VIPs[0].Name != "public" || !slices.Equal(v.VIPs[0].Holders, []string{"a"}) || !v.VIPs[0].Standby {
			t.Errorf("view of the witness: %+v, %v", v, err)
		}
		w.isolate("a") // a and the rest are parted: the witness makes the majority
		w.held("public", "b", lease+guard+3*beat)
		time.Sleep(5 * time.Second)
		w.heal()
		time.Sleep(5 * time.Second)
		w.held("public", "b", 0)
		w.kill("b")
		w.held("public", "a", 50*time.Millisecond)
		w.kill("a")
		time.Sleep(5 * time.Second)
		if got := w.holders("public"); len(got) != 0 {
			t.Errorf("held by %v", got)
		}
		w.never2(t)
	})
}

func TestWitnessLostThenPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := watched(t)
		w.kill("w")
		time.Sleep(5 * time.Second)
		w.held("public", "a", 0)
		w.isolate("a")
		time.Sleep(5 * time.Second)
		if got := w.holders("public"); len(got) != 0 {
			t.Errorf("held by %v without a majority", got)
		}
		w.start("w", nil)
		w.held("public", "b", 2*time.Second)
		w.never2(t)
	})
}

func TestNothingIsHandedToAWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := watched(t)
		a := w.nodes["a"]
		if _, err := a.Failover(t.Context(), "public", "w", ""); !errors.Is(err, ErrRefused) {
			t.Errorf("Failover to the witness = %v, want refused", err)
		}
		w.kill("b")
		time.Sleep(time.Second)
		v, _ := a.Status(t.Context())
		if v.VIPs[0].Standby {
			t.Error("the witness counts as a standby")
		}
		w.held("public", "a", 0)
	})
}

func TestGuestsAreBoundedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		vips := map[string]*config.VIP{}
		for i := range maxGuests + 10 {
			name := fmt.Sprintf("v%d", i)
			vips[name] = &config.VIP{Name: name}
		}
		w.start("a", vips)
		c := w.start("c", nil)
		time.Sleep(2 * time.Second)
		if v, _ := c.Status(t.Context()); len(v.VIPs) != maxGuests {
			t.Errorf("%d guests, want %d", len(v.VIPs), maxGuests)
		}
		w.kill("a")
		time.Sleep(2 * guestLife)
		if v, _ := c.Status(t.Context()); len(v.VIPs) != 0 {
			t.Errorf("%d guests long after their elections", len(v.VIPs))
		}
	})
}

// TestForgottenElectionIsTakenUpAboveItsTerms: what a guest promised is forgotten with it,
// but not that it did.
func TestForgottenElectionIsTakenUpAboveItsTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		w.start("a", public("a"))
		w.start("b", nil)
		w.start("c", nil)
		time.Sleep(2 * time.Second)
		v, _ := w.nodes["a"].Status(t.Context())
		before := v.VIPs[0].Term
		w.kill("a")
		w.kill("b")
		time.Sleep(2 * guestLife)
		w.start("b", public("b")) // its disk is lost; the majority is c and it
		time.Sleep(2 * time.Second)
		w.held("public", "b", 0)
		if v, _ = w.nodes["b"].Status(t.Context()); v.VIPs[0].Term <= before {
			t.Errorf("held with term %d, not above %d", v.VIPs[0].Term, before)
		}
	})
}
