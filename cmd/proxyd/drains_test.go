package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/baton"
	"proxyd/internal/clock"
	"proxyd/internal/vip"
	"proxyd/internal/vip/viptest"
)

var (
	drainedAddr = netip.MustParseAddr("10.0.0.100")
	otherAddr   = netip.MustParseAddr("10.0.0.101")
)

// noClients has no connection and notes what is to end.
type noClients struct{ cut []netip.Addr }

func (*noClients) Count(netip.Addr) int { return 0 }

func (c *noClients) Retire(local netip.Addr, force bool) {
	if force {
		c.cut = append(c.cut, local)
	}
}

// watchFor looks after a drain every second for d.
func watchFor(w *drainWatch, now func() clock.Instant, d time.Duration) {
	for range int(d / time.Second) {
		w.look(now())
		time.Sleep(time.Second)
	}
}

// The process that drains was upgraded: the connections are those of the process before.
func TestADrainLastsForConnectionsOfTheProcessBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := viptest.SinceNow()
		link := viptest.New(now).Link("eth0", viptest.MAC{2, 0, 0, 0, 0, 1}, netip.MustParsePrefix("10.0.0.1/24"))
		port := vip.OpenPort(link, vip.PortOptions{Now: now})
		defer port.Close()
		k, err := port.Keeper(netip.PrefixFrom(drainedAddr, 32), vip.Options{Drain: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		park := func() {
			if err := k.Hold(now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := k.Yield(netip.Addr{}); err != nil {
				t.Fatal(err)
			}
		}
		before, here := newPredecessor(nil), &noClients{}
		before.left.Store(&leftWords{3, map[netip.Addr]int{drainedAddr: 2, otherAddr: 1}})
		w := &drainWatch{keeper: k, conns: everyone{here, before}}
		park()
		watchFor(w, now, 3*stragglers)
		if s := k.Status(); s.State != vip.Parked || s.Conns != 2 {
			t.Errorf("with connections of the process before the address is %v with %d, want %v with 2", s.State, s.Conns, vip.Parked)
		}
		close(before.ended)
		watchFor(w, now, stragglers+2*time.Second)
		if s := k.Status(); s.State != vip.Idle {
			t.Errorf("after the process before has ended the address is %v, want %v", s.State, vip.Idle)
		}

		// One that never ends has the drain's time.
		line, far, err := baton.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer line.Close()
		defer far.Close()
		before = newPredecessor(line)
		before.left.Store(&leftWords{2, nil}) // of a release that does not say where they are
		w.conns = everyone{here, before}
		park()
		watchFor(w, now, 5*time.Minute+2*time.Second)
		if s := k.Status(); s.State != vip.Idle || len(here.cut) == 0 {
			t.Errorf("when the drain's time is over the address is %v, and of %v connections are cut", s.State, here.cut)
		}
	})
}

// A process tells the one before it which connections are to end, once that listens.
func TestTheProcessBeforeIsToldOfTheEndOfADrain(t *testing.T) {
	line, far, err := baton.Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(far)
	if far.Close(); err != nil {
		t.Fatal(err)
	}
	other, p := baton.Over(c.(*net.UnixConn)), newPredecessor(line)
	p.Retire(otherAddr, true) // it waits for other words
	if n := p.Count(drainedAddr); n != 0 {
		t.Errorf("before it said a word it has %d connections, want 0", n)
	}
	for _, c := range []struct {
		says string
		want int
	}{
		{`{"connections": 5}`, 5}, // a release that does not know where
		{`{"connections": 5, "at": {}}`, 0},
		{`{"connections": 5, "at": {"10.0.0.100": 2, "10.0.0.7": 3}}`, 2},
	} {
		err := other.Send(answerTime, sayLeft, json.RawMessage(c.says))
		if err == nil {
			var m baton.Message
			m, err = line.Receive(answerTime)
			p.note(m)
		}
		if n := p.Count(drainedAddr); err != nil || n != c.want {
			t.Errorf("it says %s: Count = %d, %v, want %d", c.says, n, err, c.want)
		}
	}
	p.Retire(drainedAddr, true)
	m, err := other.Receive(answerTime)
	var w partWords
	if err == nil {
		err = json.Unmarshal(m.Body, &w)
	}
	if want := (partWords{drainedAddr, true}); err != nil || m.Kind != sayPart || w != want {
		t.Errorf("the process before hears %q %+v, %v, want %q %+v", m.Kind, w, err, sayPart, want)
	}
	other.Close()
	p.follow(t.Context())
	if n := p.Count(drainedAddr); n != 0 {
		t.Errorf("when it has ended it has %d connections, want 0", n)
	}
}
