package fence

import (
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"proxyd/internal/clock"
)

// slow is a barrier whose first step waits to be let go.
type slow struct {
	barrier
	let   chan struct{}
	steps []map[netip.Addr]Gate
	bad   netip.Addr // with which a step fails
}

var errBad = errors.New("no")

func (s *slow) set(gates map[netip.Addr]Gate) error {
	if s.steps = append(s.steps, maps.Clone(gates)); len(s.steps) == 1 {
		<-s.let
	}
	if _, is := gates[s.bad]; is {
		return errBad
	}
	return nil
}

func addresses(n int) (all []netip.Addr) {
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}))
	}
	return all
}

// setAtOnce sets every gate from a goroutine of its own, while the first is under way.
func setAtOnce(t *testing.T, s *slow, all []netip.Addr) map[netip.Addr]error {
	f := &Fence{addrs: all, b: s}
	var mu sync.Mutex
	got := map[netip.Addr]error{}
	set := func(a netip.Addr, i int) {
		err := f.Set(a, Gate{Speak: clock.Instant(i + 1)})
		mu.Lock()
		defer mu.Unlock()
		got[a] = err
	}
	synctest.Test(t, func(*testing.T) {
		s.let = make(chan struct{})
		go set(all[0], 0)
		synctest.Wait()
		var ready sync.WaitGroup
		for i, a := range all[1:] {
			ready.Add(1)
			go func() {
				ready.Done()
				set(a, i+1)
			}()
		}
		ready.Wait()
		for f.queue.Waiting() < len(all)-1 { // a goroutine at a mutex is not at rest for synctest.Wait
			runtime.Gosched()
		}
		close(s.let)
	})
	return got
}

func TestGatesThatAreSetAtOnceAreOneStep(t *testing.T) {
	all, s := addresses(50), new(slow)
	for a, err := range setAtOnce(t, s, all) {
		if err != nil {
			t.Errorf("Set(%s) = %v", a, err)
		}
	}
	if len(s.steps) != 2 || len(s.steps[0]) != 1 || len(s.steps[1]) != 49 {
		t.Fatalf("%d steps, want the first alone and the 49 that came meanwhile", len(s.steps))
	}
	for i, a := range all[1:] {
		if g := s.steps[1][a]; g.Speak != clock.Instant(i+2) {
			t.Errorf("gate of %s until %d, want %d", a, g.Speak, i+2)
		}
	}
}

func TestGateThatFailsIsNoFaultOfTheOthers(t *testing.T) {
	all := addresses(5)
	s := &slow{bad: all[3]}
	for a, err := range setAtOnce(t, s, all) {
		if bad := errors.Is(err, errBad); bad != (a == all[3]) {
			t.Errorf("Set(%s) = %v", a, err)
		}
	}
}

func TestGateOfAnotherAddressIsRefused(t *testing.T) {
	s := new(slow)
	f := &Fence{addrs: addresses(1), b: s}
	if err := f.Set(netip.MustParseAddr("192.0.2.1"), Gate{}); !errors.Is(err, ErrUnfenced) || len(s.steps) > 0 {
		t.Errorf("Set = %v after %d steps, want ErrUnfenced and none", err, len(s.steps))
	}
}
