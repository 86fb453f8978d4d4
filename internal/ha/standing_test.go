package ha

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/ha/election"
)

func TestNodeOnStandbyHandsOverAndNeverHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		a.Withhold("maintenance", false)
		if took := w.held("public", "b", time.Second); took > 3*beat {
			t.Errorf("handed over after %v", took)
		}
		changes, err := b.Changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last := changes[len(changes)-1]; last.Reason != election.Planned || last.Text != "maintenance" {
			t.Errorf("last change %+v, want it planned", last)
		}
		if v, _ := b.Status(t.Context()); v.VIPs[0].Standby {
			t.Error("a node that is withheld counts as a standby")
		}
		time.Sleep(time.Second)
		w.kill("b")
		time.Sleep(10 * time.Second)
		if got := w.holders("public"); len(got) != 0 {
			t.Errorf("held by %v, want nobody", got)
		}
		a.Withhold("", false)
		w.held("public", "a", 2*time.Second)
		w.never2(t)
	})
}

func TestDrainedNodeHoldsOnlyWhereNobodyElseCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := pair(t, public("a", "b"))
		a.Withhold("drain", true)
		w.held("public", "b", time.Second)
		time.Sleep(time.Second)
		w.kill("b")
		if took := w.held("public", "a", time.Second); took > 4*beat {
			t.Errorf("taken by the drained node after %v", took)
		}
		changes, err := a.Changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last := changes[len(changes)-1]; last.Reason != election.NodeDead || !strings.Contains(last.Text, "nobody else can hold it; this node is in drain") {
			t.Errorf("last change %+v", last)
		}
		if v, _ := a.Status(t.Context()); v.Nodes[0].State != Draining {
			t.Errorf("it says of itself %v", v.Nodes[0].State)
		}
		b := w.start("b", public("a", "b")) // the first that can has it again
		w.held("public", "b", 3*time.Second)
		time.Sleep(time.Second)
		b.SetIll(20, "a track fails") // it can still serve
		time.Sleep(5 * time.Second)
		w.held("public", "b", 0)
		b.SetIll(Unwell, "no listener answers")
		w.held("public", "a", time.Second)
		w.never2(t)
	})
}

func TestNodeThatEndsHandsOverToADrainedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		a.Withhold("drain", true)
		w.held("public", "b", time.Second)
		time.Sleep(time.Second)
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.held("public", "a", 0)
		changes, err := a.Changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last := changes[len(changes)-1]; last.Reason != election.Planned {
			t.Errorf("last change %+v, want it planned", last)
		}
		w.never2(t)
	})
}

func TestWithheldNodeVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		var c *host
		for _, n := range w.names {
			c = w.start(n, public("a", "b", "c"))
		}
		w.held("public", "a", 3*time.Second)
		time.Sleep(time.Second)
		c.Withhold("standby", false)
		w.kill("a")
		w.held("public", "b", time.Second)
	})
}

func TestWithheldNodeKeepsWhatNobodyElseCanHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		b.SetIll(Unwell, "its listeners do not answer")
		time.Sleep(time.Second)
		a.Withhold("drain", true)
		time.Sleep(5 * time.Second)
		w.held("public", "a", 0)
		b.SetIll(election.Well, "")
		w.held("public", "b", time.Second)
		time.Sleep(time.Second)
		if v, _ := a.Status(t.Context()); v.Nodes[0].State != Draining || v.Nodes[0].Reason != "drain" {
			t.Errorf("a says of itself %+v", v.Nodes[0])
		}
		w.never2(t)
	})
}

func TestWithheldFromTheStartNeverHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		a := w.start("a", public("a", "b"))
		a.Withhold("standby", false)
		w.start("b", public("a", "b"))
		w.held("public", "b", 3*time.Second)
		time.Sleep(5 * time.Second)
		if !slices.Equal(w.moved, []string{"b"}) {
			t.Errorf("held in turn by %v", w.moved)
		}
	})
}

func TestPausedClusterMovesOnlyWhatHasDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vips := public("a", "b")
		vips["public"].Preempt = config.Preempt{On: true, After: time.Second}
		w, a, b := pair(t, vips)
		a.Pause(true)
		b.Pause(true)
		a.SetIll(Unwell, "a check fails")
		time.Sleep(5 * time.Second)
		w.held("public", "a", 0)
		a.SetIll(election.Well, "")
		w.kill("a")
		w.held("public", "b", time.Second)
		a = w.start("a", vips)
		a.Pause(true)
		time.Sleep(10 * time.Second)
		w.held("public", "b", 0)
		b.Pause(false)
		w.held("public", "a", 3*time.Second)
		w.never2(t)
	})
}

func TestWhatAnOperatorAsksForIsDoneInAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		a.Pause(true)
		b.Pause(true)
		if _, err := a.Failover(t.Context(), "public", "b", ""); err != nil {
			t.Fatal(err)
		}
		w.held("public", "b", time.Second)
		time.Sleep(time.Second)
		b.Withhold("drain", true)
		w.held("public", "a", time.Second)
		w.never2(t)
	})
}

func TestTheLessIllNodeHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := pair(t, public("a", "b"))
		a.SetIll(20, "track uplink: no route")
		w.held("public", "b", time.Second)
		if v, _ := a.Status(t.Context()); v.Nodes[0].State != Unfit || v.Nodes[0].Reason != "track uplink: no route" || v.Nodes[0].Ill != 20 {
			t.Errorf("a says of itself %+v", v.Nodes[0])
		}
		b.SetIll(20, "track uplink: no route") // both alike: nothing moves
		time.Sleep(5 * time.Second)
		w.held("public", "b", 0)
		b.SetIll(Unwell, "no listener answers")
		w.held("public", "a", time.Second)
		a.SetIll(Unwell+20, "no listener answers; track uplink: no route")
		w.held("public", "b", time.Second) // neither serves, and one of them has to
		a.SetIll(election.Well, "")
		w.held("public", "a", time.Second)
		w.never2(t)
	})
}
