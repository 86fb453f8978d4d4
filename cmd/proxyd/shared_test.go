package main

import (
	"testing"
	"time"

	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
)

func TestNodeThatWasAwayLearnsTheLastChange(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	stayed, away := newShared("edge-1"), newShared("edge-2")
	for i, c := range []ha.Change{
		{VIP: "public", To: "edge-2", Reason: election.Start},
		{VIP: "inner", From: "edge-2", To: "edge-1", Reason: election.NodeDead},
		{VIP: "public", From: "edge-2", To: "edge-1", Reason: election.Planned, Text: "kernel"},
	} {
		c.Time, c.Term = now.Add(time.Duration(i)*time.Minute), uint64(i+1)
		if err := stayed.changed(c); err != nil {
			t.Fatal(err)
		}
	}
	if c := away.last(now); c != nil {
		t.Fatalf("before they met: %+v", c)
	}
	if err := away.Merge(stayed.Encode(1)); err != nil {
		t.Fatal(err)
	}
	c := away.last(now)
	if c == nil || c.VIP != "public" || c.To != "edge-1" || c.Reason != "planned" || c.Text != "kernel" {
		t.Errorf("last change = %+v", c)
	}
	if err := away.Merge([]byte("junk")); err == nil {
		t.Error("junk was merged")
	}
}
