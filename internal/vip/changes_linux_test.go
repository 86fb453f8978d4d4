package vip

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestChangesThatAreMadeAtOnceAreAnsweredForEach(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(nil)
	index := d.place.Load().index
	var all []netip.Addr
	for i := range 100 { // more than one datagram has
		all = append(all, netip.AddrFrom4([4]byte{10, 9, 1, byte(i)}))
		all = append(all, netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: byte(i + 1), 14: 1}))
	}
	requests := func(kind, flags int, life time.Duration) (cs []*change) {
		for _, a := range all {
			cs = append(cs, &change{request: newRequest(kind, flags, a, index, life)})
		}
		return cs
	}
	put := requests(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, time.Minute)
	wrong := &change{request: newRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE, all[0], 9999, time.Minute)}
	put = append(put[:70:70], append([]*change{wrong}, put[70:]...)...)
	d.change.doAll(put)
	for _, c := range put {
		if (c.err != nil) != (c == wrong) {
			t.Errorf("%+v", c)
		}
	}
	if !errors.Is(wrong.err, unix.ENODEV) {
		t.Errorf("an address on an interface that is not there: %v, want ENODEV", wrong.err)
	}
	for _, a := range all {
		if !has(t, d, index, a) {
			t.Fatalf("%s is not there", a)
		}
	}
	var callers sync.WaitGroup
	for _, a := range all { // by the way that keepers go
		callers.Go(func() {
			if err := d.Remove(Host(a)); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	for _, a := range all {
		if has(t, d, index, a) {
			t.Fatalf("%s is still there", a)
		}
	}
	if err := d.Remove(Host(all[0])); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}
