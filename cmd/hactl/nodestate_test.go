package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"proxyd/internal/control"
)

func (f *fake) SteerNode(_ context.Context, w control.NodeWish) (*control.NodeSteered, error) {
	f.asked = "node " + w.Node + " " + w.State
	r := &control.NodeSteered{Standing: control.Standing{Node: w.Node, State: w.State}}
	if w.State == "drain" {
		r.Moved, r.Active = []string{"public"}, 3
	}
	if w.ForMS > 0 {
		end := time.Date(2026, 11, 24, 13, 0, 0, 0, time.UTC)
		f.asked += fmt.Sprint(" for ", w.ForMS)
		r.Standing.Until = &end
	}
	if w.WaitMS > 0 {
		f.asked += fmt.Sprint(" wait ", w.WaitMS)
	}
	f.asked += inBrackets(w.Reason)
	return r, f.err
}

func (f *fake) Pause(_ context.Context, w control.PauseWish) (*control.Standing, error) {
	f.asked = fmt.Sprint("pause ", w.On, " ", w.ForMS) + inBrackets(w.Reason)
	if w.On {
		return &control.Standing{State: "paused"}, f.err
	}
	return &control.Standing{State: "running"}, f.err
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func TestATimeThatIsOverIsRefused(t *testing.T) {
	for _, args := range [][]string{{"standby", "edge-1", "--for", "0s"}, {"standby", "edge-1", "--for=-3s"}, {"pause", "--for=-3s"}, {"pause", "--for", "0"}} {
		f := new(fake)
		if out, code := hactl(t, f, args...); code != exitUsage || f.asked != "" {
			t.Errorf("%v: exit code %d, asked %q: %s", args, code, f.asked, out)
		}
	}
}
