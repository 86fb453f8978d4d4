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

// relist gives a node another list of voters, in the place of what it knows with the old one.
func (h *host) relist(t *testing.T, names ...string) {
	t.Helper()
	next := h.Config
	next.Voters = nil
	for _, name := range names {
		next.Voters = append(next.Voters, h.w.id(name))
	}
	if err := h.MayVote(t.Context(), next.Voters); err != nil {
		t.Fatal(err)
	}
	n, err := New(next)
	if err != nil {
		t.Fatal(err)
	}
	known, settle, err := h.Halt(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Recall(known); err != nil {
		t.Fatal(err)
	}
	settle(true)
	<-h.ended
	ctx, cancel := contextWithCancel(t)
	h.w.mu.Lock()
	h.Node, h.cancel, h.ended = n, cancel, make(chan struct{})
	h.w.mu.Unlock()
	go func(ended chan struct{}) { defer close(ended); _ = n.Run(ctx) }(h.ended)
}

// Each node goes on with another list of voters where it was: nothing moves, and nobody holds
// what another has.
func TestVotersChangeAndNothingMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		vips := public("a", "b", "c")
		two := func(_ string, c *Config) { c.Voters = c.Voters[:2] }
		w.adapt = two
		a, b := w.start("a", vips), w.start("b", vips)
		w.held("public", "a", 5*time.Second)
		time.Sleep(time.Second)
		moved := len(w.moved)
		before, _ := a.Status(t.Context())
		all := func(names ...string) {
			t.Helper()
			for _, h := range []*host{b, a} {
				h.relist(t, names...)
				w.held("public", "a", 0)
				time.Sleep(beat)
			}
			time.Sleep(5 * lease)
			w.held("public", "a", 0)
		}
		all("a", "b", "c")
		w.adapt = nil
		w.start("c", vips)
		time.Sleep(2 * time.Second)
		w.kill("c")
		time.Sleep(time.Second)
		all("a", "b")
		if len(w.moved) != moved {
			t.Errorf("held in turn by %v", w.moved)
		}
		after, _ := a.Status(t.Context())
		if was, is := before.VIPs[0], after.VIPs[0]; is.Term != was.Term || is.Unheld != 0 {
			t.Errorf("of the VIP: before %+v, after %+v", was, is)
		}
		// What it knows is of use: it goes on voting, and takes over at once.
		w.kill("a")
		w.held("public", "b", 50*time.Millisecond)
		w.never2(t)
	})
}

func TestNextChangeOfVotersWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c", "d")
		w.adapt = func(_ string, c *Config) { c.Voters = c.Voters[:3] }
		var all []*host
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, w.start(name, public("a", "b", "c", "d")))
		}
		w.held("public", "a", 5*time.Second)
		time.Sleep(time.Second)
		for _, h := range all[:2] {
			h.relist(t, "a", "b", "c", "d")
		}
		time.Sleep(4 * lease)
		all[2].relist(t, "a", "b", "c", "d")
		time.Sleep(2 * beat)
		began := time.Now()
		if err := all[0].MayVote(t.Context(), []election.ID{w.id("a"), w.id("b"), w.id("c"), w.id("d"), "10.0.0.9:7946"}); err == nil {
			t.Error("d is not heard, and the voters may change")
		}
		w.adapt = nil
		w.start("d", public("a", "b", "c", "d"))
		time.Sleep(3 * beat)
		if err := all[0].MayVote(t.Context(), []election.ID{w.id("a"), w.id("b"), w.id("c"), w.id("d"), "10.0.0.9:7946"}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < lease+guard {
			t.Errorf("the next change may begin after %v, while leases of the list before the last go on", took)
		}
		w.never2(t)
	})
}

// A witness keeps what it promised in the election of a VIP that it has not itself.
func TestAnUpgradeForgetsNothingThatAGuestPromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		w.adapt = func(name string, c *Config) { c.Witness = name == "c" }
		w.start("a", public("a", "b"))
		w.start("b", public("a", "b"))
		c := w.start("c", nil)
		w.held("public", "a", 5*time.Second)
		time.Sleep(time.Second)
		c.relist(t, "a", "b", "c")
		var to election.ID
		_ = c.ask(t.Context(), func(clock.Instant) {
			if e := c.byVIP["public"]; e != nil {
				to = e.machine.View().PromisedTo
			}
		})
		if to != w.id("a") {
			t.Errorf("the witness has promised the VIP to %q, want a", to)
		}
		w.never2(t)
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
