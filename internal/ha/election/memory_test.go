package election

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/ha/wire/wiretest"
	"proxyd/internal/memory/memorytest"
)

func TestAnUpgradeForgetsNothingOfAMachine(t *testing.T) {
	m := New(0, Config{Self: "a", Voters: []ID{"a", "b", "c"}})
	// Config and peers' names and places are the next process's own; actions are done.
	memorytest.Complete(t, m, m.fields(), "Config", "acts", "peers")
	memorytest.Complete(t, &m.peers[0], m.peers[0].fields(), "id", "index")
}

// known is a machine that knows something of everything.
func known() *Machine {
	m := New(1000, Config{Self: "a", Voters: []ID{"a", "b"}, Lease: lease, Guard: guard, Beat: beat, Quiet: true})
	m.Step(2000, Received{From: "b", Msg: Msg{Kind: Ask, Term: 7, Sent: 5, Info: Info{Hears: true, Held: time.Minute, Prefer: 1}}})
	m.promise, m.heir = promise{"b", 7, 9000}, heir{"b", "a", 9001, true}
	m.pending = pending{"b", Msg{Kind: Ask, Term: 6, Sent: 4, Reason: Planned}, 1500}
	m.pair = pair{sole: true, ends: 1, deaf: true, rival: true, unheard: 2, round: 3, keep: true, waiting: true, granted: true, wanted: 4}
	m.picked, m.chosen, m.first, m.fence, m.quit, m.until, m.since = true, true, 3, 4, 5, 6, 7
	return m
}

func TestMemoryKeepsItsFormat(t *testing.T) {
	m := known()
	text, err := m.Memory()
	if err != nil {
		t.Fatal(err)
	}
	all := wiretest.Golden(t, "v1/memory.json", text)
	for i, text := range all {
		got := New(0, Config{Self: "a", Voters: []ID{"a", "b"}, Lease: lease, Guard: guard, Beat: beat, Quiet: true})
		if err := got.Recall(text); err != nil {
			t.Fatalf("number %d: %v", i+1, err)
		}
		if got.promise != m.promise || got.term != m.term {
			t.Errorf("number %d: a promise is forgotten: %+v", i+1, got.promise)
		}
		if i < len(all)-1 {
			continue
		}
		if d := cmp.Diff(m, got, cmp.AllowUnexported(Machine{}, promise{}, heir{}, pending{}, peer{}, pair{})); d != "" {
			t.Errorf("(-remembered +recalled)\n%s", d)
		}
	}
}
