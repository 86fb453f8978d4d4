package ha

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire/wiretest"
	"proxyd/internal/memory/memorytest"
)

// remembering is a node that did not run yet.
func remembering(t *testing.T) *Node {
	t.Helper()
	voters := []election.ID{"10.0.0.1:7946", "10.0.0.2:7946"}
	n, err := New(Config{Self: voters[0], Voters: voters, Name: "a", Timing: config.Timing{Heartbeat: beat, Lease: lease, Guard: guard},
		VIPs: public("a", "b"), Mesh: &meshEnd{}, Holders: map[string]Holder{}, Now: func() clock.Instant { return 1e9 }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnUpgradeForgetsNothingOfANode(t *testing.T) {
	n := remembering(t)
	memorytest.Complete(t, n, n.fields(),
		// of the process
		"Config", "calls", "permits", "done", "life", "mesh", "timer", "handed",
		// an upgrade is refused while there are any
		"moves",
		// done before a turn of the loop ends
		"staged",
		// lists of parts that remember for themselves, and arbiters, which are asked anew
		"electors", "byVIP", "peers", "arbiters")
	e := n.electors[0]
	memorytest.Complete(t, e, e.fields(), "name", "vips", "vip", "holders", "machine",
		"acts",   // done before a turn of the loop ends
		"onward", // told to Holders, which are others now: each is told anew
		"asking") // a probe that was under way is lost with the process; another is begun
	p := n.peers[0]
	memorytest.Complete(t, p, p.fields(), "id", "out")
}

func TestMemoryKeepsItsFormat(t *testing.T) {
	n := remembering(t)
	p, e := n.peers[0], n.electors[0]
	p.heard, p.alive, p.newest = 900, true, 1
	p.hello = samples[0].(hello)
	p.tenures["public"] = samples[1].(tenure)
	p.seats["public"] = seated{samples[5].(seat), 5000}
	e.held, e.until, e.term, e.reason = true, 4000, 1001, election.Planned
	n.wish = standing{withheld: "drain", last: true}
	n.history.add(Change{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), VIP: "public", To: "a", Term: 7, Trail: []Fact{{Kind: FactHeard, Peer: "b"}}})
	text, err := n.remember()
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range wiretest.Golden(t, "v1/memory.json", text) {
		got := remembering(t)
		if err := got.Recall(text); err != nil {
			t.Fatalf("number %d: %v", i+1, err)
		}
		q, f := got.peers[0], got.electors[0]
		if q.hello != p.hello || q.tenures["public"] != p.tenures["public"] || q.seats["public"] != p.seats["public"] || !q.alive {
			t.Errorf("number %d: of the peer it knows %+v", i+1, q)
		}
		if !f.held || f.until != 4000 || f.term != 1001 || f.onward != nil || got.wish != n.wish || len(got.history.list) != 1 {
			t.Errorf("number %d: of the VIP it knows %+v", i+1, f)
		}
	}
	if err := remembering(t).Recall(json.RawMessage(`{"version":1,"fields":{}}`)); err == nil {
		t.Error("a process that knew nothing of a VIP is followed")
	}
}
