package ha

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha/election"
)

// reconfigure gives a node other VIPs, with Holders for those that it has not yet.
func (h *host) reconfigure(t *testing.T, vips map[string]*config.VIP) error {
	t.Helper()
	holders := maps.Clone(h.Holders)
	for vip := range vips {
		if holders[vip] == nil {
			holders[vip] = &fakeHolder{h, vip}
		}
	}
	maps.DeleteFunc(holders, func(vip string, _ Holder) bool { return vips[vip] == nil })
	return h.Reconfigure(t.Context(), vips, holders, "def")
}

func with(vips map[string]*config.VIP, more ...*config.VIP) map[string]*config.VIP {
	out := maps.Clone(vips)
	for _, v := range more {
		out[v.Name] = v
	}
	return out
}

func TestVIPsComeAndGoWhileOthersAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := public("a", "b")
		w, a, b := pair(t, first)
		both := with(first, &config.VIP{Name: "private", Prefer: []string{"a"}}, &config.VIP{Name: "private6", Follow: "private"})
		if err := a.reconfigure(t, both); err != nil {
			t.Fatal(err)
		}
		// b's file is older, and it votes all the same.
		w.held("private", "a", lease+guard+2*beat)
		w.held("private6", "a", 0)
		time.Sleep(time.Second)
		if err := b.reconfigure(t, both); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		w.kill("a")
		for vip := range both {
			w.held(vip, "b", 50*time.Millisecond)
		}
		a = w.start("a", both)
		time.Sleep(2 * time.Second)
		if err := b.reconfigure(t, first); err != nil { // a still has it
			t.Fatal(err)
		}
		w.held("private", "a", 100*time.Millisecond)
		if err := a.reconfigure(t, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := append(w.holders("private"), w.holders("private6")...); len(got) != 0 {
			t.Errorf("held by %v, though nobody has it", got)
		}
		w.held("public", "b", 0)
		if v, _ := b.Status(t.Context()); v.Nodes[0].Config != "def" {
			t.Errorf("b's configuration is %s", v.Nodes[0].Config)
		}
		time.Sleep(2 * guestLife)
		if v, _ := b.Status(t.Context()); len(v.VIPs) != 1 {
			t.Errorf("b's VIPs: %+v", v.VIPs)
		}
		w.never2(t)
	})
}

func TestChangedPreferAndPreemptCountAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		other := public("b", "a")
		other["public"].Preempt = config.Preempt{On: true, After: time.Second}
		for _, h := range []*host{a, b} {
			if err := h.reconfigure(t, other); err != nil {
				t.Fatal(err)
			}
		}
		w.held("public", "b", 3*time.Second)
		w.never2(t)
	})
}

func TestAnotherAddressIsHeldByTheSameNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := public("a", "b")
		w, a, _ := pair(t, vips)
		moved := len(w.moved)
		// The same VIP with another address: its Holder is another.
		if err := a.Reconfigure(t.Context(), vips, map[string]Holder{"public": &fakeHolder{a, "elsewhere"}}, "def"); err != nil {
			t.Fatal(err)
		}
		w.held("elsewhere", "a", 0)
		if got := w.holders("public"); len(got) != 0 {
			t.Errorf("the old address is held by %v", got)
		}
		time.Sleep(time.Second)
		w.held("elsewhere", "a", 0)
		if len(w.moved) != moved+1 {
			t.Errorf("held in turn by %v", w.moved)
		}
	})
}

func TestFollowDoesNotChangeWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := with(public("a", "b"), &config.VIP{Name: "six", Follow: "public"})
		w, a, _ := pair(t, vips)
		if err := a.reconfigure(t, with(vips, &config.VIP{Name: "six"})); !errors.Is(err, ErrRefused) {
			t.Errorf("Reconfigure = %v, want refused", err)
		}
		time.Sleep(time.Second)
		w.held("six", "a", 0)
		if v, _ := a.Status(t.Context()); v.Nodes[0].Config != "abc" || !slices.Equal(v.VIPs[1].Holders, []string{"a"}) {
			t.Errorf("a after a refused change: %+v", v)
		}
	})
}

func TestVotersChangeOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		a := w.start("a", public())
		w.start("b", public())
		w.start("c", public())
		time.Sleep(2 * time.Second)
		list := func(names ...string) (out []election.ID) {
			for _, n := range names {
				out = append(out, election.ID(n))
			}
			return out
		}
		ids := list(string(w.id("a")), string(w.id("b")), string(w.id("c")))
		may := func(what string, want bool, next []election.ID) {
			t.Helper()
			if err := a.MayVote(t.Context(), next); (err == nil) != want || err != nil && !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %v, want allowed: %v", what, err, want)
			}
		}
		d := election.ID("10.0.0.9:7946")
		may("the same", true, ids)
		may("one more", true, append(slices.Clone(ids), d))
		may("one less", true, ids[:2])
		may("two more", false, append(slices.Clone(ids), d, "10.0.0.10:7946"))
		may("two less", false, ids[:1])
		may("one for another", false, []election.ID{ids[0], ids[1], d})
		_ = w.nodes["b"].ask(t.Context(), func(clock.Instant) { w.nodes["b"].Voters = append(slices.Clone(ids), d) })
		time.Sleep(time.Second)
		may("what b has already", true, append(slices.Clone(ids), d))
		may("another before b's is everywhere", false, ids[:2])
		_ = w.nodes["b"].ask(t.Context(), func(clock.Instant) { w.nodes["b"].Voters = ids })
		w.kill("c")
		time.Sleep(time.Second)
		may("one more while c is not heard", false, append(slices.Clone(ids), d))
		may("the lost one less", true, ids[:2])
	})
}

func TestLostHalfOfAPairIsReplacedInOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := pair(t, public("a", "b"))
		next := []election.ID{w.id("a"), "10.0.0.9:7946"}
		if err := a.MayVote(t.Context(), next); !errors.Is(err, ErrRefused) {
			t.Errorf("while b is heard: %v, want refused", err)
		}
		w.kill("b")
		time.Sleep(time.Second)
		if err := a.MayVote(t.Context(), next); err != nil {
			t.Errorf("after b is lost: %v", err)
		}
		if err := a.MayVote(t.Context(), []election.ID{w.id("b"), "10.0.0.9:7946"}); !errors.Is(err, ErrRefused) {
			t.Errorf("the survivor for another: %v, want refused", err)
		}
	})
}
