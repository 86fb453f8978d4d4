package relay

import (
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"

	"proxyd/internal/clock"
)

var errBad = errors.New("bad")

// slow is means that take as long as they are told to, and refuse one address.
type slow struct {
	plain
	bad   netip.Addr
	began chan struct{} // told when a step begins
	let   chan struct{} // closed: steps end
	steps [][]netip.Addr
	has   map[netip.Addr]Target
}

func (s *slow) set(targets map[netip.Addr]Target, changed []netip.Addr) error {
	s.steps = append(s.steps, slices.Clone(changed))
	select {
	case s.began <- struct{}{}:
	default:
	}
	<-s.let
	if _, is := targets[s.bad]; is {
		return errBad
	}
	s.has = targets
	return nil
}

// setAtOnce sets a target for every address from a goroutine of its own, while the first
// is under way.
func setAtOnce(s *slow, all []netip.Addr) (*Relay, map[netip.Addr]error) {
	s.began, s.let = make(chan struct{}, 1), make(chan struct{})
	r := &Relay{log: slog.New(slog.DiscardHandler), means: s, targets: map[netip.Addr]Target{}}
	var mu sync.Mutex
	got := map[netip.Addr]error{}
	var callers sync.WaitGroup
	set := func(a netip.Addr, i int) {
		err := r.Set(a, Target{MAC: [6]byte{2, 5: byte(i)}, Until: 1})
		mu.Lock()
		defer mu.Unlock()
		got[a] = err
	}
	callers.Go(func() { set(all[0], 0) })
	<-s.began
	for i, a := range all[1:] {
		callers.Go(func() { set(a, i+1) })
	}
	for r.queue.Waiting() < len(all)-1 {
		runtime.Gosched()
	}
	close(s.let)
	callers.Wait()
	return r, got
}

func addresses(n int) (all []netip.Addr) {
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}))
	}
	return all
}

func TestTargetsThatAreSetAtOnceAreOneStep(t *testing.T) {
	all, s := addresses(50), new(slow)
	_, got := setAtOnce(s, all)
	for a, err := range got {
		if err != nil {
			t.Errorf("Set(%s) = %v", a, err)
		}
	}
	if len(s.steps) != 2 || len(s.steps[0]) != 1 || len(s.steps[1]) != 49 {
		t.Fatalf("%d steps, want the first alone and the 49 that came meanwhile", len(s.steps))
	}
	for i, a := range all {
		if to := s.has[a]; to.MAC[5] != byte(i) {
			t.Errorf("packets for %s go on to %v, want number %d", a, to.MAC, i)
		}
	}
}

func TestTargetThatFailsIsNoFaultOfTheOthers(t *testing.T) {
	all := addresses(5)
	s := &slow{bad: all[3]}
	_, got := setAtOnce(s, all)
	for a, err := range got {
		if bad := errors.Is(err, errBad); bad != (a == all[3]) {
			t.Errorf("Set(%s) = %v", a, err)
		}
		if _, has := s.has[a]; has != (a != all[3]) {
			t.Errorf("packets for %s go on: %v", a, has)
		}
	}
}

func TestOnlyWhatChangesIsWritten(t *testing.T) {
	all, s := addresses(2), &slow{let: make(chan struct{})}
	close(s.let)
	r := &Relay{log: slog.New(slog.DiscardHandler), means: s, targets: map[netip.Addr]Target{}}
	to := Target{MAC: [6]byte{2}, Until: clock.Instant(1)}
	for _, a := range []netip.Addr{all[0], all[1], all[1]} {
		if err := r.Set(a, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Set(all[0], Target{}); err != nil {
		t.Fatal(err)
	}
	want := [][]netip.Addr{{all[0]}, {all[1]}, {all[0]}}
	if !slices.EqualFunc(s.steps, want, slices.Equal) {
		t.Errorf("written %v, want %v", s.steps, want)
	}
	if _, on := s.has[all[0]]; on || s.has[all[1]] != to {
		t.Errorf("targets %v, want %s alone", s.has, all[1])
	}
}
