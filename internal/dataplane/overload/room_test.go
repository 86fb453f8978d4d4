package overload

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhoWaitsIsCalledWhenTheTimeHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Room{}
		begun := time.Now()
		waits := []time.Duration{0, 250 * time.Millisecond, 251 * time.Millisecond, time.Second, mostHold * 5 / 4}
		called := make(chan [2]time.Duration, len(waits))
		for _, d := range waits {
			r.Wait(d, func() { called <- [2]time.Duration{d, time.Since(begun)} })
		}
		for range waits {
			if c := <-called; c[1] < c[0]-roomTick || c[1] > c[0]+2*roomTick {
				t.Errorf("who was to wait %v was called after %v", c[0], c[1])
			}
		}
	})
}

func TestARoomIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Room{}
		for i := range 1000 {
			done := make(chan struct{})
			begun := time.Now()
			r.Wait(time.Duration(i)*time.Millisecond, func() { close(done) })
			<-done
			if d := time.Since(begun); d > time.Duration(i)*time.Millisecond+2*roomTick {
				t.Fatalf("it waited %v for %d ms", d, i)
			}
		}
	})
}

func TestOneTimerSeesToAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Room{}
		const n = 10000
		called := make(chan time.Time, n)
		for i := range n {
			r.Wait(time.Duration(i%100)*roomTick/100+time.Second, func() { called <- time.Now() })
		}
		times := map[time.Time]int{}
		for range n {
			times[<-called]++
		}
		if len(times) > 2 {
			t.Errorf("%d who had a place in the same ticks were called at %d times", n, len(times))
		}
	})
}

func TestSomeGoOnEarlyWhenTheNodeHasTimeForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spare atomic.Bool
		spare.Store(true)
		r := &Room{Early: spare.Load}
		const n = 12800
		var called atomic.Int64
		for range n {
			r.Wait(5*time.Second, func() { called.Add(1) })
		}
		time.Sleep(5*roomTick + time.Millisecond)
		synctest.Wait()
		if c := called.Load(); c < 400 || c > 5*n/earlyPart {
			t.Errorf("after five ticks %d of %d have gone on", c, n)
		}
		spare.Store(false)
		was := called.Load()
		time.Sleep(time.Second)
		synctest.Wait()
		if called.Load() != was {
			t.Errorf("%d went on though the node had no time for them", called.Load()-was)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if called.Load() != n {
			t.Errorf("%d of %d went on in the end", called.Load(), n)
		}
	})
}

func TestAGateHasTimeToSpareOnlyWhenNobodyIsRefusedOrLate(t *testing.T) {
	g := &Gate{}
	now := feed(g, time.Unix(epoch, 0), 3*alarmWindows, time.Second)
	if !g.Shut() || g.Spare() {
		t.Fatalf("overloaded: shut is %v, spare %v", g.Shut(), g.Spare())
	}
	g.Hold()
	if feed(g, now, 5, 0); !g.Shut() || !g.Spare() {
		t.Errorf("nothing is late: shut is %v, spare %v", g.Shut(), g.Spare())
	}
}
