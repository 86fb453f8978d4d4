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
