package track

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
)

// world is what the tracks of a test find: why each is not good.
type world struct {
	mu    sync.Mutex
	wrong map[string]string
	takes time.Duration
	looks map[string]int
	at    int // looks under way
	most  int
}

func (w *world) look(ctx context.Context, t *config.Track) string {
	w.mu.Lock()
	w.looks[t.Name]++
	w.at++
	w.most = max(w.most, w.at)
	takes := w.takes
	w.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at--
	return w.wrong[t.Name]
}

func (w *world) set(name, wrong string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong[name] = wrong
}

func (w *world) count(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looks[name]
}

func newSet(t *testing.T, changes *[]string) (*Set, *world) {
	w := &world{wrong: map[string]string{}, looks: map[string]int{}}
	s := New(Options{Log: slog.New(slog.DiscardHandler), look: w.look, OnChange: func(v State) {
		sign := map[bool]string{true: "+", false: "-"}[v.Up]
		w.mu.Lock()
		defer w.mu.Unlock()
		*changes = append(*changes, sign+v.Name)
	}})
	t.Cleanup(s.Close)
	return s, w
}

func named(name string, less int) *config.Track {
	return &config.Track{Name: name, File: "/" + name, Interval: time.Second, Rise: 2, Fall: 3, Weight: config.Weight{Veto: less == 0, Less: less}}
}

func TestATrackFailsAndIsGoodAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		s, w := newSet(t, &changes)
		s.Use([]*config.Track{named("a", 20), named("b", 30)})
		time.Sleep(1500 * time.Millisecond)
		w.set("a", "no route")
		w.set("b", "gone")
		time.Sleep(2 * time.Second) // two looks
		if b := s.Burden(); b.Less != 0 || len(b.Reasons) != 0 {
			t.Errorf("after two failed looks the burden is %+v", b)
		}
		time.Sleep(time.Second)
		b := s.Burden()
		if b.Less != 50 || b.Veto || !slices.Equal(b.Reasons, []string{"track a: no route", "track b: gone"}) {
			t.Errorf("after three failed looks the burden is %+v", b)
		}
		w.set("a", "")
		time.Sleep(time.Second)
		if b := s.Burden(); b.Less != 50 || b.Reasons[0] != "track a: good again, not for long enough" {
			t.Errorf("after one good look the burden is %+v", b)
		}
		time.Sleep(time.Second)
		if b := s.Burden(); b.Less != 30 {
			t.Errorf("after two good looks the burden is %+v", b)
		}
		s.Close()
		slices.Sort(changes)
		if !slices.Equal(changes, []string{"+a", "-a", "-b"}) {
			t.Errorf("changes %v", changes)
		}
	})
}

func TestALookIsNeverMadeTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		s, w := newSet(t, &changes)
		w.takes = 3500 * time.Millisecond
		s.Use([]*config.Track{named("a", 20)})
		time.Sleep(20 * time.Second)
		s.Close()
		if w.most != 1 || w.looks["a"] < 5 {
			t.Errorf("%d looks, %d at once", w.looks["a"], w.most)
		}
	})
}

func TestAReloadKeepsWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		s, w := newSet(t, &changes)
		w.set("a", "no route")
		w.set("b", "gone")
		s.Use([]*config.Track{named("a", 20), named("b", 0)})
		time.Sleep(9500 * time.Millisecond) // between two looks
		if b := s.Burden(); b.Less != 20 || !b.Veto {
			t.Fatalf("the burden is %+v", b)
		}
		// a weighs more now, b is gone, c is new and good.
		s.Use([]*config.Track{named("c", 5), named("a", 40)})
		if b := s.Burden(); b.Less != 40 || b.Veto {
			t.Errorf("at the instant of the reload the burden is %+v", b)
		}
		before := w.count("b")
		time.Sleep(10 * time.Second)
		v := s.States()
		if w.count("b") != before || w.count("c") == 0 || v[1].Failed < 18 || !v[0].Up {
			t.Errorf("b was looked at %d times, then %d; states %+v", before, w.count("b"), v)
		}
		// Under the same name something else is looked at: the old opinion means nothing.
		other := named("a", 40)
		other.File = "/else"
		w.set("a", "")
		s.Use([]*config.Track{other})
		if b := s.Burden(); b.Less != 0 {
			t.Errorf("what is looked at anew has the burden %+v", b)
		}
	})
}

func TestAChangeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		s, w := newSet(t, &changes)
		s.Use([]*config.Track{named("a", 0)})
		<-s.Changed() // what is tracked
		time.Sleep(1500 * time.Millisecond)
		w.set("a", "no route")
		begin := time.Now()
		<-s.Changed()
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("told after %v", took)
		}
	})
}

func TestOneWhoHoldsNothingJudgesAPoolAtOnce(t *testing.T) {
	for holds, want := range map[bool]int{true: 3, false: 1} {
		synctest.Test(t, func(t *testing.T) {
			var changes []string
			s, w := newSet(t, &changes)
			s.Holds = func() bool { return holds }
			pool := named("web", 0)
			pool.File, pool.Pool = "", "web"
			s.Use([]*config.Track{pool})
			time.Sleep(1500 * time.Millisecond)
			w.set("web", "no server is well")
			for look := 1; look <= 4; look++ {
				time.Sleep(time.Second)
				if failed := s.Burden().Veto; failed != (look >= want) {
					t.Errorf("holds %t: after %d failed looks failed = %t", holds, look, failed)
				}
			}
		})
	}
}

func TestCloseCutsALookShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		s, w := newSet(t, &changes)
		w.takes = time.Hour
		w.set("a", "no route")
		s.Use([]*config.Track{named("a", 0)})
		synctest.Wait()
		begin := time.Now()
		s.Close()
		if time.Since(begin) > 0 || len(changes) > 0 {
			t.Errorf("Close took %v, changes %v", time.Since(begin), changes)
		}
		s.Use([]*config.Track{named("a", 0)}) // does nothing any more
	})
}
