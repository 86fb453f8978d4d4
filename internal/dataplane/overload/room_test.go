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
		const n, each = 12800, 100
		var spare atomic.Bool
		spare.Store(true)
		r := &Room{Early: func(_ time.Time, waiting int) int {
			if waiting < 1 || waiting > n {
				t.Errorf("it is said that %d wait", waiting)
			}
			if spare.Load() {
				return each
			}
			return 0
		}}
		var called atomic.Int64
		for range n {
			r.Wait(5*time.Second, func() { called.Add(1) })
		}
		time.Sleep(5*roomTick + time.Millisecond)
		synctest.Wait()
		if c := called.Load(); c < 4*each || c > 5*each {
			t.Errorf("after five ticks %d have gone on, want %d in each", c, each)
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
	if n := g.Early(now, 1000); !g.Shut(now) || n != 0 {
		t.Fatalf("overloaded: shut is %v, %d of 1000 go on early", g.Shut(now), n)
	}
	g.Hold()
	now = feed(g, now, 5, 0)
	if n := g.Early(now, 1000); !g.Shut(now) || n < 1 || n > 10 {
		t.Errorf("nothing is late: shut is %v, %d of 1000 go on early", g.Shut(now), n)
	}
}

func TestWhoLeavesTheRoomIsNotCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		r := &Room{Early: func(_ time.Time, waiting int) int { asked = waiting; return 1 }}
		var called []string
		a := r.Wait(time.Second, func() { called = append(called, "a") })
		b := r.Wait(time.Second, func() { called = append(called, "b") })
		if !a.Leave() || a.Leave() {
			t.Error("one who waits can leave once")
		}
		time.Sleep(roomTick + time.Millisecond)
		synctest.Wait()
		if len(called) != 1 || called[0] != "b" || asked != 1 {
			t.Errorf("%q went on early, of %d who waited", called, asked)
		}
		if b.Leave() {
			t.Error("one who was called can leave")
		}
	})
}

// Whoever comes, is refused and goes, again and again, leaves neither timers nor places behind.
func TestWhoComesAndLeavesLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		r := &Room{Early: func(time.Time, int) int { asked.Add(1); return 0 }}
		for range 100 {
			for range 100 {
				r.Wait(time.Second, func() {}).Leave()
			}
			time.Sleep(roomTick + time.Millisecond)
			synctest.Wait()
		}
		kept := 0
		for _, slot := range r.slots {
			kept += len(slot)
		}
		if kept != 0 {
			t.Errorf("%d places are kept of those who have left", kept)
		}
		for range 100 {
			r.Wait(time.Second, func() {}).Leave()
		}
		r.Wait(time.Second, func() {})
		time.Sleep(10*roomTick + time.Millisecond)
		synctest.Wait()
		if n := asked.Load(); n > 11 {
			t.Errorf("one who waits was looked after %d times in ten ticks", n)
		}
		time.Sleep(2 * time.Second)
	})
}
