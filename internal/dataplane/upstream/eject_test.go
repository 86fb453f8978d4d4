package upstream

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// ejecting makes a pool with eject.max, or a breaker, and neither max_fails nor names.
func ejecting(t testing.TB, eject *config.Eject, breaker *config.Breaker, n int) *Pool {
	t.Helper()
	c := &config.Pool{Name: "app", Eject: eject, Breaker: breaker, Passive: config.Passive{FailTimeout: 30 * time.Second, On: []string{"connect", "timeout", "502"}}}
	for i := range n {
		c.Server = append(c.Server, config.Server{Addr: fmt.Sprintf("10.0.0.1:%d", 'a'+i), Weight: 1})
	}
	p, err := New(c, nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outcome notes attempts at a server: each letter is one that went well (+) or failed (-).
func outcome(p *Pool, s *Server, now time.Time, results string) {
	for _, r := range results {
		if r == '+' {
			p.Answered(s, now, 200, 0, true, quiet)
		} else {
			p.Answered(s, now, 502, 0, true, quiet)
		}
	}
}

// out returns the letters of the servers that are not fit.
func out(p *Pool, now time.Time) string {
	var b strings.Builder
	for _, s := range p.servers {
		if !s.fit(now) {
			b.WriteString(short(s))
		}
	}
	return b.String()
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }

func TestAServerThatStandsOutIsLeftOut(t *testing.T) {
	for _, c := range []struct {
		why    string
		others string // of b, c and d each, before
		own    string // of a
		want   string
	}{
		{"a fifth of its attempts fail, of the others none", repeat("+", 30), repeat("++++-", 5), "a"},
		{"as many of the others fail", repeat("++++-", 10), repeat("++++-", 10), ""},
		{"twice as many fail as of the others", repeat("+++++++++-", 5), repeat("++++-", 10), ""},
		{"three times as many", repeat("+++++++++-", 5), repeat("+++--++-++", 5), "a"},
		{"one in twenty: no more than happens", repeat("+", 30), repeat("+", 19) + "-", ""},
		{"too few attempts to say", repeat("+", 30), repeat("+-", 9), ""},
		{"nothing is known of the others", "", repeat("+-", 20), ""},
		{"five in a row need no comparison", "", "+-----", "a"},
		{"four in a row and one that went well", "", "----+----", ""},
	} {
		p := ejecting(t, &config.Eject{Max: 0.5}, nil, 4)
		for _, s := range p.servers[1:] {
			outcome(p, s, at(0), c.others)
		}
		outcome(p, p.servers[0], at(1), c.own)
		if got := out(p, at(1)); got != c.want {
			t.Errorf("%s: left out %q, want %q", c.why, got, c.want)
		}
	}
}

func TestOldAttemptsDoNotMakeAnOutlier(t *testing.T) {
	p := ejecting(t, &config.Eject{Max: 0.5}, nil, 2)
	for second := range 60 { // half of its attempts fail, but there are never 20 in 10 s
		outcome(p, p.servers[1], at(second), "++++++")
		outcome(p, p.servers[0], at(second), "+-"[second%2:][:1])
	}
	if got := out(p, at(60)); got != "" {
		t.Errorf("left out %q", got)
	}
}

func TestNoMoreThanEjectMaxAreLeftOut(t *testing.T) {
	for _, c := range []struct {
		max     config.Share
		servers int
		want    int
	}{{0.5, 4, 2}, {0.5, 5, 2}, {0.1, 5, 1}, {1, 3, 3}, {0.5, 2, 1}, {0.3, 2, 1}, {0.5, 1, 0}, {1, 1, 1}} {
		p := ejecting(t, &config.Eject{Max: c.max}, nil, c.servers)
		var all sync.WaitGroup
		for _, s := range p.servers { // all at once
			all.Go(func() { outcome(p, s, at(0), "----------") })
		}
		all.Wait()
		if got := len(out(p, at(1))); got != c.want {
			t.Errorf("max %v of %d servers: %d left out, want %d", c.max, c.servers, got, c.want)
		}
	}
}

func TestServersThatAreDownCountForEjectMax(t *testing.T) {
	p := ejecting(t, &config.Eject{Max: 0.5}, nil, 4)
	for _, s := range p.servers[:2] {
		s.change(func(h *Health) { h.Probe("status 500", &config.Check{Rise: 1, Fall: 1}) })
	}
	outcome(p, p.servers[2], at(0), "-----")
	if got := out(p, at(0)); got != "ab" {
		t.Errorf("out are %s: with two of four down, a third was left out", got)
	}
}

func TestEjectMaxBoundsMaxFailsToo(t *testing.T) {
	p := ejecting(t, &config.Eject{Max: 0.5}, nil, 4)
	p.Config.Passive.MaxFails = 3
	for _, s := range p.servers {
		for range 3 {
			p.Failed(s, at(0), dataplane.ErrConnect, true, quiet)
		}
	}
	if got := out(p, at(0)); got != "ab" {
		t.Errorf("out are %s, want two of four", got)
	}
	if n := p.servers[0].Ejections[LeftOut].Load(); n != 1 {
		t.Errorf("counted %d ejections by max_fails, want 1", n)
	}
}

func TestAnOutlierIsLeftOutLongerEachTime(t *testing.T) {
	p := ejecting(t, &config.Eject{Max: 0.5}, nil, 2)
	s := p.servers[0]
	lasts := func(from int) int {
		for second := from; ; second++ {
			if s.fit(at(second)) {
				return second - from
			}
		}
	}
	outcome(p, s, at(0), "-----")
	if got := lasts(0); got != 30 {
		t.Fatalf("left out for %d s, want fail_timeout", got)
	}
	s.claim(at(30), false)
	outcome(p, s, at(31), "-")
	if got := lasts(31); got != 60 {
		t.Errorf("after a failed trial left out for %d s, want 60", got)
	}
	s.claim(at(91), false)
	p.Answered(s, at(91), 200, 0, true, quiet)
	if !s.fit(at(91)) {
		t.Fatal("not back after a good trial")
	}
	outcome(p, s, at(92), "-----")
	if got := lasts(92); got != 90 {
		t.Errorf("the third time in a row left out for %d s, want 90", got)
	}
	s.claim(at(182), false)
	p.Answered(s, at(182), 200, 0, true, quiet)
	outcome(p, s, at(182+65), "-----") // two fail_timeouts went well
	if got := lasts(182 + 65); got != 60 {
		t.Errorf("after a minute in service left out for %d s, want 60", got)
	}
}

func TestFailuresOfWhatWasUnderWayDoNotGrowTheTime(t *testing.T) {
	p := ejecting(t, &config.Eject{Max: 0.5}, nil, 2)
	outcome(p, p.servers[0], at(0), repeat("-", 200))
	if got := out(p, at(31)); got != "" {
		t.Errorf("%s is still out after fail_timeout", got)
	}
}
