package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/control"
)

func TestStatusTable(t *testing.T) {
	now := time.Date(2026, 8, 11, 12, 0, 0, 0, time.UTC)
	since, announced, holder := now.Add(-(12*24+4)*time.Hour), now.Add(-41*time.Second), "edge-1"
	s := &control.Status{
		Cluster: "edge", Health: "degraded", Reasons: []string{"node edge-3 is unheard"}, Node: "edge-1", Config: "7f3a91c", Since: since,
		Arbiters: []control.ArbiterStatus{{Address: "10.0.0.1", OK: true}},
		Nodes: []control.NodeStatus{
			{Name: "edge-1", State: "up", Address: "10.0.0.11:7946", Config: "7f3a91c", Version: "1.4.0", UptimeS: 31 * 86400},
			{Name: "edge-2", State: "up", Address: "10.0.0.12:7946", AgeMS: 12, LongestGapMS: 41, LimitMS: 110, Config: "7f3a91c", Version: "1.4.0", UptimeS: 3700},
			{Name: "edge-3", State: "unheard", Reason: "nothing heard", Address: "10.0.0.13:7946", AgeMS: -1},
		},
		VIPs: []control.VIPStatus{{Name: "public", Address: "203.0.113.10", Holder: &holder, Holders: []string{holder}, Term: 7, Since: &since, LeaseMS: 74,
			Announced: &announced, Prefer: []string{"edge-1", "edge-2", "edge-3"}, UnheldS: 0.25}},
		Overload: control.Overload{Shedding: true, Waiting: 312, Refused: 4210},
		Last:     &control.Change{Time: now, VIP: "public", From: "edge-2", To: "edge-1", Reason: "planned", Text: "kernel", TookMS: 3},
	}
	want := `cluster edge   DEGRADED   config 7f3a91c (same on all)   arbiter 10.0.0.1 ok   seen from edge-1, up 12d 4h
  node edge-3 is unheard

NODE       STATE     PREFER   HEALTH          HEARTBEAT   LONGEST GAP 24h   HOLDS    ADDRESS          CONFIG    VERSION   UPTIME
edge-1 *   holder    1        ok              -           -                 public   10.0.0.11:7946   7f3a91c   1.4.0     31d 0h
edge-2     standby   2        ok              12 ms ago   41 of 110 ms      -        10.0.0.12:7946   7f3a91c   1.4.0     1h 1m
edge-3     unheard   3        nothing heard   never       0 of 0 ms         -        10.0.0.13:7946   -         -         0s

VIP      ADDRESS        HOLDER   TERM   SINCE        SEEN       LEASE   LAST ANNOUNCED   CONFLICTS   UNHELD
public   203.0.113.10   edge-1   7      12d 4h ago   0 ms ago   74 ms   41s ago          0           0.2s

OVERLOAD  edge-1 SHEDS: 312 refusals wait, 4210 exchanges were refused since its start

LAST CHANGE  2026-08-11T12:00:00Z  public: edge-2 -> edge-1  planned ("kernel"), 3.0 ms
`
	var b bytes.Buffer
	table(&b, s, now)
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
}

func TestSince(t *testing.T) {
	now := time.Date(2026, 8, 11, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "90m": now.Add(-90 * time.Minute), "7d": now.Add(-7 * 24 * time.Hour), "2026-08-11T03:12:44Z": time.Date(2026, 8, 11, 3, 12, 44, 0, time.UTC),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("parseSince(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-5m", "d", "7"} {
		if got, err := parseSince(text, now); err == nil {
			t.Errorf("parseSince(%q) = %v, want an error", text, got)
		}
	}
}
