package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"proxyd/internal/control"
	"proxyd/internal/doctor"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
	"proxyd/internal/track"
)

func TestFitnessAddsUp(t *testing.T) {
	no := track.Burden{}
	light := track.Burden{Less: 30, Reasons: []string{"track a: gone"}}
	heavy := track.Burden{Less: 130, Reasons: []string{"track a: gone", "track b: gone"}}
	veto := track.Burden{Veto: true, Reasons: []string{"track c: gone"}}
	both := track.Burden{Veto: true, Less: 20, Reasons: []string{"track a: gone", "track c: gone"}}
	tests := []struct {
		name   string
		unable string
		burden track.Burden
		ill    election.Ill
		why    string
	}{
		{"fit", "", no, election.Well, ""},
		{"a weight", "", light, 30, "track a: gone"},
		{"weights never make a veto", "", heavy, ha.Unwell - 1, "track a: gone; track b: gone"},
		{"a veto", "", veto, ha.Unwell, "track c: gone"},
		{"a veto and a weight", "", both, ha.Unwell + 20, "track a: gone; track c: gone"},
		{"its listeners do not answer", "no answer", no, ha.Unwell, "no answer"},
		{"nor is a track good", "no answer", light, ha.Unwell + 30, "no answer; track a: gone"},
	}
	for _, test := range tests {
		ill, why := fitness(test.unable, test.burden)
		if ill != test.ill || why != test.why {
			t.Errorf("%s: %d, %q, want %d, %q", test.name, ill, why, test.ill, test.why)
		}
	}
}

func TestTracksDecideHowFitANodeIs(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// A look has the time that a busy machine takes to run a program: one that is given up is a
	// failure too, with another reason.
	const head = "[[track]]\nname = %q\ninterval = \"2s\"\ntimeout = \"1900ms\"\nrise = 1\nfall = 2\n%s\n"
	all := func(tracks ...string) string { return strings.Join(tracks, "") + site("127.0.0.1:0", "one") }
	file := fmt.Sprintf(head, "ready", fmt.Sprintf("weight = -20\ncommand = \"test -e %s || { echo not ready; exit 7; }\"", ready))
	nodes := launchCluster(t, 2, all(file))
	a := nodes[0]
	state := func(want, reason string) func() bool {
		return func() bool {
			s, err := a.Status(t.Context())
			return err == nil && s.Nodes[0].State == want && s.Nodes[0].Reason == reason
		}
	}
	a.eventually("it is fit", func() bool {
		s, err := a.Status(t.Context())
		return err == nil && s.Nodes[0].State == "up" && len(s.Tracks) == 1 && s.Tracks[0].State == "up" && s.Tracks[0].Weight == -20
	})
	if err := os.Remove(ready); err != nil {
		t.Fatal(err)
	}
	a.eventually("the track has failed", state("unfit", "track ready: exit code 7: not ready"))
	nodes[1].eventually("the other node says so too", func() bool {
		s, err := nodes[1].Status(t.Context())
		return err == nil && s.Health == "degraded" && strings.Contains(strings.Join(s.Reasons, "\n"), "node edge-1 is unfit (track ready: exit code 7: not ready)")
	})
	a.eventually("the metrics say so", func() bool {
		page, err := a.Metrics(t.Context())
		return err == nil && strings.Contains(page, `proxyd_track_up{cluster="test",kind="command",track="ready"} 0`) &&
			strings.Contains(page, `proxyd_node_ill{cluster="test",node="edge-1"} 20`) &&
			strings.Contains(page, `proxyd_track_checks_total{cluster="test",result="failed",track="ready"}`)
	})
	a.eventually("the history says so", func() bool {
		h, err := a.History(t.Context(), control.HistoryQuery{})
		if err != nil {
			return false
		}
		for _, e := range h.Entries {
			if e.Node == "edge-1" && e.Sentence() == "track ready has failed: exit code 7: not ready" {
				return true
			}
		}
		return false
	})
	a.eventually("the doctor says so", func() bool {
		d, err := a.Doctor(t.Context())
		return err == nil && slices.ContainsFunc(d.Findings, func(f doctor.Finding) bool {
			return f.Check == "track" && f.About == "ready" && f.Level == doctor.Warn && f.What == "it has failed: exit code 7: not ready"
		})
	})
	// A track is added, and one is removed, while it runs.
	before, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.write(all(fmt.Sprintf(head, "never", "command = [\"/bin/false\"]")))
	if _, err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.eventually("the new one counts", state("unfit", "track never: exit code 1"))
	a.write(all())
	if _, err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.eventually("it is fit without tracks", state("up", ""))
	if after, err := a.Status(t.Context()); err != nil || !after.Since.Equal(before.Since) || len(after.Tracks) != 0 {
		t.Errorf("status %+v, %v; its process started at %v before", after, err, before.Since)
	}
}
