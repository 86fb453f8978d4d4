package ha

import (
	"testing"
	"testing/synctest"
	"time"
)

// sendsOn returns whom a node sends older connections on to.
func (w *world) sendsOn(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[name].onward
}

func (w *world) wantSendsOn(when string, want map[string]string) {
	w.t.Helper()
	for name, to := range want {
		if got := w.sendsOn(name); got != to {
			w.t.Errorf("%s: %s sends older connections on to %q, want %q", when, name, got, to)
		}
	}
}

func (w *world) failover(by, to string) {
	w.t.Helper()
	if _, err := w.nodes[by].Failover(w.t.Context(), "", to, ""); err != nil {
		w.t.Fatal(err)
	}
}

func TestNewHolderSendsOnBeforeItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := pair(t, public("a", "b"))
		done := make(chan struct{})
		go func() { defer close(done); w.failover("b", "b") }()
		w.until(time.Second, "b answers", func() bool { return len(w.holders("public")) == 1 && w.holders("public")[0] == "b" })
		w.wantSendsOn("as soon as it answers", map[string]string{"b": "a", "a": ""})
		<-done
		v, err := w.nodes["b"].Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d := v.VIPs[0].Drains; len(d) != 1 || d[0].Node != "a" || d[0].Here || d[0].Conns != 3 || d[0].Left <= drainTime-time.Second {
			t.Errorf("the new holder sees the drains %+v", d)
		}
		if v, err = a.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := v.VIPs[0].Drains; len(d) != 1 || !d[0].Here || d[0].Conns != 3 {
			t.Errorf("the old holder sees the drains %+v", d)
		}
		time.Sleep(drainTime + time.Second)
		w.wantSendsOn("after the drain", map[string]string{"b": "", "a": ""})
		w.never2(t)
	})
}

func TestHandingBackSendsOnTheOtherWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := pair(t, public("a", "b"))
		w.failover("a", "b")
		time.Sleep(time.Second)
		w.failover("a", "a")
		time.Sleep(time.Second)
		w.wantSendsOn("handed back", map[string]string{"a": "b", "b": ""})
		w.failover("a", "b")
		time.Sleep(time.Second)
		w.wantSendsOn("and once more", map[string]string{"a": "", "b": "a"})
	})
}

func TestDrainsAreAChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		for _, n := range w.names {
			w.start(n, public("a", "b", "c"))
		}
		w.held("public", "a", 3*time.Second)
		time.Sleep(time.Second)
		w.failover("a", "b")
		time.Sleep(time.Second)
		w.failover("a", "c")
		time.Sleep(time.Second)
		w.wantSendsOn("a, b, c", map[string]string{"c": "b", "b": "a", "a": ""})
		w.failover("b", "a")
		time.Sleep(time.Second)
		w.wantSendsOn("a, b, c, a: a circle is none", map[string]string{"a": "c", "c": "b", "b": ""})
		w.kill("c")
		time.Sleep(time.Second)
		w.wantSendsOn("one of the chain died", map[string]string{"a": "b", "b": ""})
	})
}

func TestNothingIsSentOnToADeadProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := pair(t, public("a", "b"))
		w.kill("a")
		w.held("public", "b", time.Second)
		w.wantSendsOn("taken from a process that is gone", map[string]string{"b": ""})
	})
}

// A failover that was a mistake costs no connection: the old holder is only late.
func TestHolderThatFellSilentIsSentOnTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := pair(t, public("a", "b"))
		w.deafen("a", true)
		w.isolate("a")
		w.held("public", "b", time.Second)
		w.wantSendsOn("at first", map[string]string{"b": "a"})
		time.Sleep(doubt + lease)
		w.wantSendsOn("when it stays silent", map[string]string{"b": ""})
		w.deafen("a", false)
		w.heal()
		time.Sleep(2 * time.Second)
		w.wantSendsOn("when it is heard again, and drains", map[string]string{"b": "a"})
		w.never2(t)
	})
}

func TestDrainerTakesTheAddressAgainWhenTheNewHolderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := pair(t, public("a", "b"))
		w.failover("a", "b")
		time.Sleep(time.Second)
		w.kill("b")
		w.held("public", "a", time.Second)
		w.wantSendsOn("alone", map[string]string{"a": ""})
	})
}

// The relay of the next process is another, which was told nothing yet.
func TestTheNextProcessSaysAnewWherePacketsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, b := pair(t, public("a", "b"))
		w.failover("a", "b")
		time.Sleep(time.Second)
		for range 2 {
			w.mu.Lock()
			b.onward = "" // that of the process before ends with it
			w.mu.Unlock()
			b.relist(t, "a", "b")
			time.Sleep(beat)
			w.wantSendsOn("in another process", map[string]string{"b": "a", "a": ""})
		}
	})
}
