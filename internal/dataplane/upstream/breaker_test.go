package upstream

import (
	"testing"
	"time"

	"proxyd/internal/config"
)

var halfOrMore = &config.Breaker{Errors: 0.5, Open: 10 * time.Second}

func stateAt(s *Server, now time.Time) string {
	state, _ := s.health.State(now)
	return state
}

func TestABreakerOpensByTheShareOfFailures(t *testing.T) {
	for _, c := range []struct{ why, results, want string }{
		{"half of twenty", repeat("+-", 10), "open"},
		{"less than half", repeat("++-", 20), "up"},
		{"all of nineteen: too few to say", repeat("-", 19), "up"},
		{"all of twenty", repeat("-", 20), "open"},
	} {
		p := ejecting(t, nil, halfOrMore, 1)
		outcome(p, p.servers[0], at(0), c.results)
		if got := stateAt(p.servers[0], at(0)); got != c.want {
			t.Errorf("%s: %s, want %s", c.why, got, c.want)
		}
	}
}

func TestABreakerForgetsAfterTenSeconds(t *testing.T) {
	p := ejecting(t, nil, halfOrMore, 1)
	s := p.servers[0]
	outcome(p, s, at(0), repeat("-", 19))
	outcome(p, s, at(10), "-")
	if got := stateAt(s, at(10)); got != "up" {
		t.Errorf("%s by failures of which most are older than 10 s", got)
	}
	outcome(p, s, at(15), repeat("-", 19))
	if got := stateAt(s, at(15)); got != "open" {
		t.Errorf("%s after twenty in 10 s", got)
	}
}

func TestAHalfOpenBreakerLetsOneThrough(t *testing.T) {
	open := func() (*Pool, *Server) {
		p := ejecting(t, nil, halfOrMore, 1)
		outcome(p, p.servers[0], at(0), repeat("-", 20))
		return p, p.servers[0]
	}
	p, s := open()
	for second := range 10 {
		if got := pick(p, at(second), client); got != nil {
			t.Fatalf("asked %d s after it opened", second)
		}
	}
	if got := stateAt(s, at(10)); got != "half-open" {
		t.Errorf("%s after 10 s", got)
	}
	if pick(p, at(10), client) == nil || pick(p, at(10), client) != nil {
		t.Error("half open: want one exchange let through")
	}
	p.Answered(s, at(11), 200, 5*time.Second, true, quiet)
	if got := stateAt(s, at(11)); got != "half-open" {
		t.Errorf("%s by an exchange that was begun before the trial", got)
	}
	p.Answered(s, at(11), 200, time.Second, true, quiet)
	if got := stateAt(s, at(11)); got != "up" {
		t.Errorf("%s after a good trial", got)
	}
	outcome(p, s, at(12), repeat("-", 19))
	if got := stateAt(s, at(12)); got != "up" {
		t.Errorf("%s by failures counted before it closed", got)
	}

	p, s = open()
	pick(p, at(10), client)
	outcome(p, s, at(12), "-")
	if stateAt(s, at(21)) != "open" || stateAt(s, at(22)) != "half-open" {
		t.Error("after a failed trial: want open for another 10 s")
	}
	if n := s.Ejections[Opened].Load(); n != 2 {
		t.Errorf("counted %d openings, want 2", n)
	}

	p, _ = open()
	pick(p, at(10), client)
	if pick(p, at(19), client) != nil || pick(p, at(20), client) == nil {
		t.Error("a trial whose end is never heard of: want another after 10 s")
	}
}

func TestWhatWasUnderWayDoesNotKeepABreakerOpen(t *testing.T) {
	p := ejecting(t, nil, halfOrMore, 1)
	s := p.servers[0]
	outcome(p, s, at(0), repeat("-", 20))
	outcome(p, s, at(9), "---")
	if got := stateAt(s, at(10)); got != "half-open" {
		t.Errorf("%s 10 s after it opened", got)
	}
}

func TestPanicTriesServersThatAreOutButNoOpenBreaker(t *testing.T) {
	p := ejecting(t, nil, halfOrMore, 3)
	for _, s := range p.servers[:2] {
		s.change(func(h *Health) { h.Probe("status 500", &config.Check{Rise: 1, Fall: 1}) })
	}
	if p.Panicking(at(0)) {
		t.Fatal("panicking with one server up")
	}
	outcome(p, p.servers[2], at(0), repeat("-", 20))
	if !p.Panicking(at(1)) {
		t.Error("not panicking with none up")
	}
	if got := picks(p, at(1), 4); got != "abab" {
		t.Errorf("picks %s, want those that checks call down and not the open breaker", got)
	}
	if n := p.Panics.Load(); n != 4 {
		t.Errorf("counted %d picks without a server up, want 4", n)
	}
	if got := picks(p, at(10), 1); got != "c" {
		t.Errorf("a half-open server is fit for one: picked %s", got)
	}
}

func TestAServerThatChecksBringBackHasAClosedBreaker(t *testing.T) {
	check := &config.Check{Rise: 1, Fall: 1}
	p := ejecting(t, nil, halfOrMore, 1)
	s := p.servers[0]
	s.change(func(h *Health) { h.Probe("", check) })
	outcome(p, s, at(0), repeat("-", 20))
	s.change(func(h *Health) { h.Probe("status 500", check) })
	s.change(func(h *Health) { h.Probe("", check) })
	if got := stateAt(s, at(1)); got != "up" {
		t.Errorf("%s", got)
	}
}

func TestCountingForABreakerAllocatesNothing(t *testing.T) {
	p := ejecting(t, &config.Eject{Max: 0.5}, halfOrMore, 3)
	s := p.servers[0]
	if n := testing.AllocsPerRun(100, func() { p.Answered(s, at(0), 200, 0, true, quiet) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAWindowCountsTheLastTenSeconds(t *testing.T) {
	var w window
	for second := range 30 {
		w.add(at(second), 2, 1)
	}
	if got := w.sum(at(29)); got != (tally{20, 10}) {
		t.Errorf("%+v, want 10 s of it", got)
	}
	if got := w.sum(at(34)); got != (tally{10, 5}) {
		t.Errorf("%+v after 5 quiet seconds", got)
	}
	if got := w.sum(at(28)); got.attempts > 20 {
		t.Errorf("%+v by a reading a little older", got)
	}
	w.add(at(-3600), 1, 0) // the clock was set back
	if got := w.sum(at(-3600)); got.attempts != 1 {
		t.Errorf("%+v after the clock was set back", got)
	}
}
