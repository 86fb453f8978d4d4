package engine

import (
	"testing"
	"time"
)

const (
	testQuota  = 33 * time.Millisecond
	testPeriod = 100 * time.Millisecond
)

// spend has two loops that always have something to do work for so long, in pieces of
// piece, and returns what they used in each period.
func spend(p *pacer, from moment, long, piece time.Duration) (periods []time.Duration, used time.Duration) {
	var free [2]moment // when each goes on
	free[0], free[1] = from, from
	periods = make([]time.Duration, long/testPeriod+2)
	for {
		i := 0
		if free[1] < free[0] {
			i = 1
		}
		t := free[i]
		if t-from >= moment(long) {
			return periods[:long/testPeriod], used
		}
		used += piece
		periods[(t-from)/moment(testPeriod)] += piece
		t += moment(piece)
		free[i] = t + moment(p.rest(t, used))
	}
}

func TestAQuotaIsUsedEvenlyAndAlmostWhole(t *testing.T) {
	for _, piece := range []time.Duration{50 * time.Microsecond, time.Millisecond} {
		p := &pacer{}
		p.set(testQuota, testPeriod)
		periods, used := spend(p, moment(time.Hour), 10*time.Second, piece)
		for i, n := range periods[1:] {
			if n > testQuota+piece {
				t.Errorf("in pieces of %v, period %d used %v of %v: the kernel stops it", piece, i+1, n, testQuota)
			}
		}
		if least := 100 * testQuota * 92 / 100; used < least {
			t.Errorf("in pieces of %v it used %v, want %v at the least", piece, used, least)
		}
	}
}

func TestALoopRestsForMillisecondsOnly(t *testing.T) {
	p := &pacer{}
	p.set(testQuota, testPeriod)
	at, used := moment(time.Hour), time.Duration(0)
	for range 1000 {
		used += 20 * time.Millisecond // others than the loops use most of it
		if d := p.rest(at, used); d > mostRest {
			t.Fatalf("it rests for %v", d)
		}
		at += moment(10 * time.Millisecond)
	}
	// What others have used is not made up for without end.
	at += moment(mostOwed * 10 / 3)
	if d := p.rest(at, used); d > leastRest {
		t.Errorf("it rests for %v, though the others were long idle", d)
	}
}

func TestLittleIsSavedUp(t *testing.T) {
	p := &pacer{}
	p.set(testQuota, testPeriod)
	p.rest(moment(time.Hour), 0) // after an hour without work
	if d := p.rest(moment(time.Hour), testQuota*savedPart/100); d != 0 {
		t.Errorf("a burst of a quarter of the quota rests for %v", d)
	}
	if d := p.rest(moment(time.Hour), testQuota/2); d == 0 {
		t.Error("half the quota at once, and no rest")
	}
}

func TestWithoutAQuotaNothingRests(t *testing.T) {
	p := &pacer{}
	p.set(testQuota, testPeriod)
	if p.rest(moment(time.Hour), 0); !p.spare.Load() {
		t.Error("nothing was used, and nothing is to spare")
	}
	if p.set(0, testPeriod); p.spare.Load() {
		t.Error("there is something to spare of no quota")
	}
	if _, used := spend(p, 0, time.Second, time.Millisecond); used != 2*time.Second || p.on() {
		t.Errorf("two loops used %v in a second, on %v", used, p.on())
	}
}
