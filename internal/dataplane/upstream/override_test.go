package upstream

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

func TestWithheldServerIsGivenNothing(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn", "ewma", "random", "hash"} {
		for _, mode := range []Mode{Drain, Disable} {
			p := poolOf(t, balance, "a", "b", "c")
			running := p.servers[1]
			running.Active.Add(1)
			p.servers[1].Steer(mode)
			if got := picks(p, at(0), 12); strings.Contains(got, "b") || strings.Contains(got, "-") {
				t.Errorf("%s: picks while b is in %s = %s", balance, mode, got)
			}
			if n := running.Active.Load(); n != 1 {
				t.Errorf("%s: %d exchanges of b are in progress, want the one that was", balance, n)
			}
			p.Release(running)
			p.servers[1].Steer(Serve)
			seen := ""
			for i := range 200 {
				s := pick(p, at(0), netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
				seen += short(s)
				p.Release(s)
			}
			if !strings.Contains(seen, "b") {
				t.Errorf("%s: b is given nothing after it may serve again", balance)
			}
		}
	}
}

func TestWithheldServerIsNoLastResort(t *testing.T) {
	p := poolOf(t, "round_robin", "a", "b")
	p.servers[1].Steer(Disable)
	down(p, "a")
	if got := picks(p, at(1), 4); got != "aaaa" {
		t.Errorf("picks with a down and b disabled = %s, want a alone to be tried", got)
	}
	p.servers[0].Steer(Drain)
	if got := picks(p, at(1), 2); got != "--" {
		t.Errorf("picks with both withheld = %s, want none", got)
	}
}

func TestModeStandsAboveHealthAndOutlivesAReload(t *testing.T) {
	old := poolOf(t, "round_robin", "a", "b")
	old.servers[1].Steer(Disable)
	down(old, "b")
	p, err := New(confOf("least_conn", "a", "b"), old, Place{})
	if err != nil {
		t.Fatal(err)
	}
	w := NewWatch(Env{})
	defer w.Close()
	w.Use(map[string]*Pool{"app": p})
	state, why := p.servers[1].State()
	if state != "maint" || !strings.Contains(why, "ejected") {
		t.Errorf("State = %q, %q; want maint, and that it is ejected too", state, why)
	}
	p.servers[1].Steer(Serve)
	if state, _ := p.servers[1].State(); state != "ejected" {
		t.Errorf("State after it may serve again = %q, want ejected as before", state)
	}
}

func TestANameThatResolvesDoesNotUndoADrain(t *testing.T) {
	s, err := newServer("app", "app.example.com:80", new(atomic.Uint64))
	if err != nil {
		t.Fatal(err)
	}
	s.Steer(Drain)
	s.resolved([]netip.Addr{netip.MustParseAddr("10.0.0.1")})
	if s.fit(at(0)) {
		t.Error("the server is fit once its name resolves")
	}
}
