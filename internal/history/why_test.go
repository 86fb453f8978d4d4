package history

import (
	"strings"
	"testing"
	"time"
)

// killed is what two nodes wrote when the holder's process died.
func killed() []Entry {
	return []Entry{
		{Node: "edge-1", Seq: 1, Time: noon.Add(-time.Minute), Kind: Changed, VIP: "public", Term: 2, To: "edge-1", Reason: "start"},
		{Node: "edge-2", Seq: 1, Time: noon, Kind: Changed, VIP: "public", Term: 5, From: "edge-1", To: "edge-2", Reason: "node_dead", TookMS: 14,
			Steps: []Step{
				{MS: -900, What: string(Asked), Node: "edge-3", Text: "of long ago"},
				{MS: -14, What: LastHeard, Node: "edge-1"},
				{MS: -2.5, What: string(Lost), Node: "edge-1", Text: "its lifeline closed (EOF) and a new one is refused"},
				{MS: -2, What: Claim, Text: "term 5"},
				{MS: 0, What: Announced},
			}},
		{Node: "edge-2", Seq: 2, Time: noon, Kind: Answered, VIP: "public", Term: 5, TookMS: 1.5},
		{Node: "edge-3", Seq: 9, Time: noon.Add(time.Millisecond), Kind: Changed, VIP: "public", Term: 5, From: "edge-1", To: "edge-2", Reason: "node_dead"},
		{Node: "edge-3", Seq: 3, Time: noon.Add(-time.Hour), Kind: Stall, TookMS: 300},
	}
}

func TestWhyTellsADeathFromItsEvidence(t *testing.T) {
	s, ok := Why(killed(), "public", 0)
	if !ok || s.Term != 5 || s.Teller != "edge-2" || s.From != "edge-1" || s.To != "edge-2" || s.TookMS != 14 {
		t.Fatalf("Why = %+v, %v", s, ok)
	}
	text := strings.Join(s.Sentences, "\n")
	for _, want := range []string{
		"edge-2 took public from edge-1 at 2026-08-11 12:00:00.000Z under term 5.",
		"The process of edge-1 was gone: its lifeline closed (EOF) and a new one is refused, 11.5 ms after its last sign of life.",
		"it took 14.0 ms",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var steps []string
	for _, p := range s.Timeline {
		steps = append(steps, p.What)
	}
	if got, want := strings.Join(steps, " "), "last_heard lost claim announced answered"; got != want {
		t.Errorf("timeline %s, want %s", got, want)
	}
	if first, last := s.Timeline[0].MS, s.Timeline[4].MS; first != 0 || last != 15.5 {
		t.Errorf("timeline from %v to %v ms, want 0 to 15.5", first, last)
	}
	if len(s.Others) != 1 || s.Others[0].Node != "edge-3" || len(s.Others[0].Saw) != 1 {
		t.Errorf("others %+v", s.Others)
	}
}

func TestWhyFindsAnEarlierTermAndNoneThatThereIsNot(t *testing.T) {
	if s, ok := Why(killed(), "", 2); !ok || s.Reason != "start" {
		t.Errorf("term 2: %+v, %v", s, ok)
	}
	if _, ok := Why(killed(), "public", 4); ok {
		t.Error("term 4 is known")
	}
	if _, ok := Why(killed(), "other", 0); ok {
		t.Error("another VIP changed")
	}
}

// The new holder is dead too, and what it knew with it.
func TestWhySaysWhenOnlyOthersSawIt(t *testing.T) {
	s, ok := Why(killed()[3:4], "public", 0)
	if !ok || !strings.Contains(strings.Join(s.Sentences, " "), "The evidence is that of edge-3") {
		t.Errorf("Why = %+v, %v", s, ok)
	}
}
