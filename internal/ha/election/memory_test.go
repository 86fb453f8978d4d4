package election

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/clock"
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

// recalled is the machine of known by another list of voters.
func recalled(t *testing.T, m *Machine, voters ...ID) *Machine {
	t.Helper()
	text, err := m.Memory()
	if err != nil {
		t.Fatal(err)
	}
	got := New(m.now, Config{Self: "a", Voters: voters, Lease: lease, Guard: guard, Beat: beat, Quiet: true})
	if err := got.Recall(text); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAnotherListOfVotersKeepsPromises(t *testing.T) {
	m := known()
	m.role, m.pair = Standby, pair{round: 3, wanted: 4}
	m.heir = heir{}
	for _, voters := range [][]ID{{"a", "b", "c"}, {"a"}, {"a", "c"}} {
		got := recalled(t, m, voters...)
		if got.promise != m.promise || got.granted != m.granted || got.seen != m.seen || got.role != Standby {
			t.Errorf("%v: promise %+v, granted %d, seen %d, role %s", voters, got.promise, got.granted, got.seen, got.role)
		}
		if p := got.peer("c"); p != nil && (p.known || p.acked) {
			t.Errorf("%v: it knows something of c: %+v", voters, p)
		}
	}
}

// Of three or more nobody holds alone; of another pair one does, by what it asks anew.
func TestWhoHoldsAloneLetsGoWhereThreeVote(t *testing.T) {
	m := known()
	m.role, m.until, m.heir = Holder, m.now.Add(lease), heir{}
	m.pair = pair{sole: true, ends: m.now.Add(soleLeases * lease), wanted: m.now, waiting: true, granted: true}
	got := recalled(t, m, "a", "b", "c")
	if acts := got.Step(got.now+1, Tick{}); len(acts) == 0 || acts[0] != (Drop{Reason: Isolated}) || got.role == Holder {
		t.Errorf("of three: %+v, %s", acts, got.role)
	}
	got = recalled(t, m, "a", "c")
	got.Step(got.now+1, Tick{})
	if got.role != Holder || !got.pair.sole || got.pair.granted || got.pair.waiting {
		t.Errorf("of another pair: %s, %+v", got.role, got.pair)
	}
}

// A successor that is no voter any more will not take what is given to it.
func TestHandOverToOneWhoGoesIsTakenBack(t *testing.T) {
	m := known()
	m.role, m.heir, m.promise = Standby, heir{"b", "a", m.now.Add(lease), false}, promise{}
	got := recalled(t, m, "a", "c", "d")
	if got.Step(got.now+1, Tick{}); got.role != Candidate {
		t.Errorf("it is %s, want candidate", got.role)
	}
}

// A lease that was won by one list of voters goes on while the list after it is in force. That
// and one by the list after that need have no voter in common: therefore the next change waits
// for lease + guard (ha.Node's MayVote), and this is what happens without.
func TestLeaseOutlivesTheListItWasWonBy(t *testing.T) {
	five, four, three := []ID{"a", "b", "c", "d", "e"}, []ID{"a", "b", "c", "d"}, []ID{"b", "c", "d"}
	made := func(self ID, voters []ID) *Machine {
		return New(0, Config{Self: self, Voters: voters, Lease: lease, Guard: guard, Beat: beat})
	}
	b := made("b", five)
	now := clock.Instant(2 * beat)
	b.Step(now, Tick{})
	for _, from := range []ID{"a", "e"} { // c and d hear nothing of it
		b.Step(now, Received{From: from, Msg: Msg{Kind: Grant, Term: b.term, Sent: b.asked}})
	}
	if b.role != Holder {
		t.Fatalf("b is %s", b.role)
	}
	next := func(m *Machine, voters []ID) *Machine {
		t.Helper()
		text, err := m.Memory()
		if err != nil {
			t.Fatal(err)
		}
		got := made(m.Self, voters)
		if err := got.Recall(text); err != nil {
			t.Fatal(err)
		}
		return got
	}
	b = next(next(b, four), three)
	if b.Step(now+1, Tick{}); b.role != Holder {
		t.Fatalf("b is %s by another list, want holder", b.role)
	}
	c, d := made("c", three), made("d", three)
	var sent []Action
	for c.role != Candidate {
		now = c.Deadline()
		sent = c.Step(now, Tick{})
	}
	for _, a := range sent {
		if s, ok := a.(Send); ok && s.To == "d" {
			for _, a := range d.Step(now, Received{From: "c", Msg: s.Msg}) {
				if s, ok := a.(Send); ok {
					c.Step(now, Received{From: "d", Msg: s.Msg})
				}
			}
		}
	}
	if c.role != Holder || now >= b.until {
		t.Errorf("c is %s at %v, b's lease ends at %v: want two that hold", c.role, now, b.until)
	}
	if b.until > clock.Instant(2*beat).Add(lease) {
		t.Errorf("b's lease ends at %v: not within a lease of the change", b.until)
	}
}
