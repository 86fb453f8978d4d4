package detect

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/clock"
)

const (
	ms       = time.Millisecond
	interval = 40 * ms
)

// at is an instant some way into the life of a node.
func at(d time.Duration) clock.Instant { return clock.Instant(time.Hour + d) }

// steady returns a peer that was heard once an interval until the instant of the n'th
// beat, which is n intervals after the first.
func steady(n int) *Peer {
	p := New(at(0), interval)
	for i := range n + 1 {
		p.Beat(at(time.Duration(i)*interval), 1, uint64(i+1))
	}
	return p
}

// awake lets the owner run once an interval.
func awake(p *Peer, from, to time.Duration) {
	for d := from; d <= to; d += interval {
		p.Tick(at(d))
	}
}

func TestSilentAfterSixMissedBeatsAndAHalf(t *testing.T) {
	p := steady(10)
	last := 10 * interval
	awake(p, last, last+6*interval)
	if p.Silent(at(last + 260*ms - 1)) {
		t.Error("silent before 6 beats and a half were missed")
	}
	if !p.Silent(at(last + 260*ms)) {
		t.Error("not silent after 6 beats and a half were missed")
	}
	if got, want := p.Deadline(), at(last+260*ms); got != want {
		t.Errorf("Deadline = %v, want %v", got, want)
	}
}

func TestNeverHeardIsSilentAfterTheLimit(t *testing.T) {
	p := New(at(0), interval)
	awake(p, 0, 240*ms)
	if p.Silent(at(259 * ms)) {
		t.Error("silent too early")
	}
	if !p.Silent(at(260 * ms)) {
		t.Error("never silent")
	}
	if _, ok := p.Heard(); ok {
		t.Error("heard of a peer that never beat")
	}
}

func TestOwnSleepIsNotThePeersSilence(t *testing.T) {
	p := steady(10)
	woke := 10*interval + 10*time.Second
	if p.Silent(at(woke)) {
		t.Error("silent at the moment of waking, before a Tick")
	}
	p.Tick(at(woke))
	if p.Silent(at(woke)) {
		t.Error("silent at the moment of waking")
	}
	awake(p, woke, woke+6*interval)
	if !p.Silent(at(woke + 260*ms)) {
		t.Error("a peer that stays silent after the sleep is not found")
	}
	if s := p.Stats(); s.Stalls != 1 || s.LongStall != 10*time.Second {
		t.Errorf("%d stalls, longest %v, want one of 10s", s.Stalls, s.LongStall)
	}
}

func TestSleepBeforeABeatIsNoGap(t *testing.T) {
	p := steady(10)
	p.Beat(at(10*interval+10*time.Second), 1, 12)
	if s := p.Stats(); s.LongestGap > 2*interval || s.NearMisses != 0 || s.Silences != 0 {
		t.Errorf("the owner's sleep counts against the peer: %+v", s)
	}
}

func TestBackIsToldOnce(t *testing.T) {
	p := New(at(0), interval)
	if !p.Beat(at(1*ms), 1, 1) {
		t.Error("the first beat is not news")
	}
	if p.Beat(at(41*ms), 1, 2) {
		t.Error("the second beat is news")
	}
	awake(p, 80*ms, 400*ms)
	if !p.Beat(at(420*ms), 1, 3) {
		t.Error("a beat after the silence is not news")
	}
	if s := p.Stats(); s.Silences != 1 || s.NearMisses != 0 {
		t.Errorf("%d silences, %d near misses, want 1 and 0", s.Silences, s.NearMisses)
	}
}

func TestLongGapIsANearMiss(t *testing.T) {
	p := steady(10)
	last := 10 * interval
	awake(p, last, last+5*interval)
	p.Beat(at(last+200*ms), 1, 16)
	want := Stats{Beats: 12, Lost: 4, LongestGap: 200 * ms, NearMisses: 1}
	if d := cmp.Diff(want, p.Stats()); d != "" {
		t.Error(d)
	}
}

func TestLossIsCountedFromTheNumbers(t *testing.T) {
	for _, c := range []struct {
		name string
		seqs []uint64
		want Stats
	}{
		{"none", []uint64{1, 2, 3, 4}, Stats{Beats: 4}},
		{"two lost", []uint64{1, 4, 5}, Stats{Beats: 3, Lost: 2}},
		{"overtaken is not lost", []uint64{1, 3, 2, 4}, Stats{Beats: 4}},
		{"doubled counts once", []uint64{1, 2, 2, 3, 1}, Stats{Beats: 3, Doubled: 2}},
		{"first heard late", []uint64{90, 91, 89}, Stats{Beats: 2, Doubled: 1}},
		{"a hole wider than the window", []uint64{1, 101, 100, 2}, Stats{Beats: 2, Lost: 99, Doubled: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New(at(0), interval)
			for _, seq := range c.seqs {
				p.Beat(at(0), 7, seq)
			}
			if d := cmp.Diff(c.want, p.Stats()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestLossOfNothingIsNone(t *testing.T) {
	if l := (Stats{}).Loss(); l != 0 {
		t.Errorf("Loss = %v", l)
	}
	if l := (Stats{Beats: 3, Lost: 1}).Loss(); l != 0.25 {
		t.Errorf("Loss = %v, want 0.25", l)
	}
}

func TestNewLifeBeginsAnewWithoutLoss(t *testing.T) {
	p := steady(10)
	p.Beat(at(11*interval), 2, 1)
	if s := p.Stats(); s.Lost != 0 || s.Doubled != 0 || s.Beats != 12 {
		t.Errorf("a restart counts as loss: %+v", s)
	}
}

func TestOvertakenBeatProvesNothingAboutNow(t *testing.T) {
	p := New(at(0), interval)
	p.Beat(at(0), 1, 1)
	p.Beat(at(0), 1, 3)
	awake(p, 0, 200*ms)
	p.Beat(at(200*ms), 1, 2)
	if got, want := p.Deadline(), at(260*ms); got != want {
		t.Errorf("Deadline = %v, want %v", got, want)
	}
}
