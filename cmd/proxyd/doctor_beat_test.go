package main

import (
	"strings"
	"testing"
	"time"

	"proxyd/internal/doctor"
	"proxyd/internal/ha"
	"proxyd/internal/ha/beat"
)

func TestDoctorSaysWhetherTheHeartbeatIsInRealTime(t *testing.T) {
	f := beating(beat.Thread{RealTime: true, Late: 1234 * time.Microsecond})
	if f.Level != doctor.OK || f.What != "its thread runs in real time; it came too late by 1.23ms at the most" {
		t.Errorf("%+v", f)
	}
	f = beating(beat.Thread{Why: "it may not", Stalls: 2})
	if f.Level != doctor.Warn || !strings.Contains(f.What, "it may not") || !strings.Contains(f.What, "2 times") || f.Cure == "" {
		t.Errorf("%+v", f)
	}
}

func TestMembersAreCountedByWhatIsThoughtOfThem(t *testing.T) {
	for want, n := range map[string]ha.NodeView{
		"alive": {}, "suspect": {Suspect: true}, "dead": {State: ha.Unheard}, "left": {State: ha.Unheard, Left: true},
	} {
		if got := memberState(n); got != want {
			t.Errorf("%+v counts as %s, want %s", n, got, want)
		}
	}
}

func TestDoctorKnowsANameThatNoNodeHas(t *testing.T) {
	both := []ha.NodeView{{ID: "10.0.0.11:7946", Name: "edge-1"}, {ID: "10.0.0.12:7946", Name: "edge-2"}}
	if got := strangers([]string{"edge-1", "egde-2"}, both); len(got) != 1 || got[0] != "egde-2" {
		t.Errorf("strangers = %v, want egde-2", got)
	}
	both[1].Name = "10.0.0.12:7946" // never heard
	if got := strangers([]string{"edge-1", "edge-2"}, both); len(got) != 0 {
		t.Errorf("strangers = %v, though the name of a node is not known", got)
	}
}
