package election

import (
	"testing"
	"time"

	"proxyd/internal/clock"
)

// hearing is the first voter of three, past its quiet start and about to ask.
func hearing(t *testing.T) (m *Machine, now clock.Instant) {
	t.Helper()
	m = New(clock.Instant(time.Hour), Config{Self: "a", Voters: []ID{"a", "b", "c"}, Lease: lease, Guard: guard, Beat: beat})
	now = m.Deadline()
	m.Step(now, Tick{})
	if m.role != Candidate {
		t.Fatalf("a is %v, want a candidate", m.role)
	}
	return m, now
}

// held returns the term of the Hold in acts, or 0 if there is none.
func held(acts []Action) uint64 {
	for _, a := range acts {
		if h, ok := a.(Hold); ok {
			return h.Term
		}
	}
	return 0
}

func TestLeaseBeginsUnderATermThatAMajorityPromised(t *testing.T) {
	m, now := hearing(t)
	low := m.term
	m.Step(now+1, Received{"c", Msg{Kind: Refuse, Term: 20, Sent: now}})
	high := m.term
	if high <= 20 {
		t.Fatalf("asks under term %d after one of 20 was heard of", high)
	}
	if h := held(m.Step(now+2, Received{"b", Msg{Kind: Grant, Term: low, Sent: now}})); h != 0 {
		t.Errorf("holds with term %d though b promised %d and only a itself %d", h, low, high)
	}
	if h := held(m.Step(now+3, Received{"b", Msg{Kind: Grant, Term: high, Sent: now + 1}})); h != high {
		t.Errorf("holds with term %d after a majority promised %d", h, high)
	}
}

func TestTermOfALeaseRisesWhenAMajorityHasPromisedTheNext(t *testing.T) {
	m, now := hearing(t)
	low := m.term
	m.Step(now+1, Received{"b", Msg{Kind: Grant, Term: low, Sent: now}})
	now = m.Deadline()
	m.Step(now, Tick{})
	m.Step(now+1, Received{"c", Msg{Kind: Refuse, Term: 20, Sent: now}})
	high := m.term
	// What b promised under the low term, and what it now promises, arrive one after the other.
	if h := held(m.Step(now+2, Received{"b", Msg{Kind: Grant, Term: low, Sent: now}})); h != low {
		t.Errorf("the lease is renewed with term %d, want %d", h, low)
	}
	if h := held(m.Step(now+3, Received{"b", Msg{Kind: Grant, Term: high, Sent: now + 1}})); h != high {
		t.Errorf("the lease is renewed with term %d, want %d", h, high)
	}
}

func TestGrantOfTheSameInstantCountsForTheLaterTerm(t *testing.T) {
	m, now := hearing(t)
	m.Step(now, Received{"c", Msg{Kind: Refuse, Term: 20, Sent: now}})
	m.Step(now, Received{"b", Msg{Kind: Grant, Term: m.first, Sent: now}})
	if h := held(m.Step(now, Received{"b", Msg{Kind: Grant, Term: m.term, Sent: now}})); h != m.term {
		t.Errorf("holds with term %d, want %d: both asks were of one instant", h, m.term)
	}
}

func TestOneTermIsNotPromisedToTwo(t *testing.T) {
	m := New(clock.Instant(time.Hour), Config{Self: "c", Voters: []ID{"a", "b", "c"}, Lease: lease, Guard: guard, Beat: beat})
	answer := func(at time.Duration, from ID, msg Msg) Msg {
		for _, a := range m.Step(clock.Instant(time.Hour+at), Received{from, msg}) {
			if s, ok := a.(Send); ok && s.To == from {
				return s.Msg
			}
		}
		t.Fatalf("no answer to %v", msg)
		return Msg{}
	}
	if a := answer(1, "a", Msg{Kind: Ask, Term: 4, Sent: 1}); a.Kind != Grant {
		t.Fatalf("a is not promised what it asks for: %v", a)
	}
	m.Step(clock.Instant(time.Hour+2), Received{"a", Msg{Kind: Waive, Term: 4}})
	if a := answer(3, "b", Msg{Kind: Ask, Term: 4, Sent: 2}); a.Kind != Refuse || a.Term <= 4 {
		t.Errorf("b, with another list of voters, is answered %v under the term of a", a)
	}
}
