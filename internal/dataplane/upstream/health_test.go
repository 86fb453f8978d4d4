package upstream

import (
	"testing"
	"time"

	"proxyd/internal/config"
)

var (
	start   = time.Unix(1_800_000_000, 0)
	passive = config.Passive{MaxFails: 3, FailTimeout: 30 * time.Second}
	rules   = &config.Pool{Passive: passive}
)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// failed counts a failure by rules and reports whether it left the server out.
func failed(h *Health, now time.Time, cause string) bool {
	return h.Fail(now, rules, cause, 1) == LeftOut
}

func TestFailuresWithinFailTimeoutLeaveAServerOut(t *testing.T) {
	var h Health
	for i, second := range []int{0, 10} {
		if failed(&h, at(second), "connect") {
			t.Fatalf("failure %d left the server out", i+1)
		}
	}
	if !h.Fit(at(10)) || !h.Clean() {
		t.Fatal("two failures of three are enough")
	}
	if !failed(&h, at(20), "connect") || h.Fit(at(20)) || h.Fit(at(49)) {
		t.Fatal("the third failure within 30 s did not leave the server out for 30 s")
	}
	if state, why := h.State(at(20)); state != "ejected" || why != "connect" {
		t.Errorf("State = %s, %q; want ejected, connect", state, why)
	}
}

func TestOldFailuresDoNotCount(t *testing.T) {
	var h Health
	for _, second := range []int{0, 1, 32, 33} {
		if failed(&h, at(second), "connect") {
			t.Fatalf("left out at %d s, though never three failures in 30 s", second)
		}
	}
}

func TestOneTrialAfterFailTimeout(t *testing.T) {
	out := func() *Health {
		h := &Health{}
		for range 3 {
			failed(h, at(0), "timeout")
		}
		return h
	}
	h := out()
	if h.Succeed(at(1), at(0), rules) || h.Fit(at(29)) {
		t.Error("an exchange begun before brought the server back")
	}
	if !h.Fit(at(30)) {
		t.Fatal("not fit for a trial after fail_timeout")
	}
	h.Take(at(30))
	if h.Fit(at(31)) {
		t.Error("a second trial while the first is under way")
	}
	if h.Succeed(at(31), at(29), rules) || !h.Succeed(at(31), at(30), rules) || !h.Fit(at(31)) || !h.Clean() {
		t.Error("the trial succeeded and the server is not back")
	}

	h = out()
	h.Take(at(40))
	failed(h, at(41), "connect")
	if h.Fit(at(70)) || !h.Fit(at(71)) {
		t.Error("a failed trial must leave the server out for another fail_timeout")
	}

	h = out()
	h.Take(at(40))
	if !h.Fit(at(70)) {
		t.Error("a trial whose end was never heard of keeps the server out for ever")
	}
}

func TestMaxFailsZeroTurnsPassiveHealthOff(t *testing.T) {
	var h Health
	for range 100 {
		h.Fail(at(0), &config.Pool{Passive: config.Passive{FailTimeout: time.Second}}, "connect", 1)
	}
	if !h.Fit(at(0)) {
		t.Error("left out")
	}
}

func TestChecksNeedRiseAndFall(t *testing.T) {
	check := &config.Check{Rise: 2, Fall: 3}
	for _, c := range []struct{ why, results, states string }{
		{"the first failure decides", "-", "d"},
		{"the first success decides", "+", "u"},
		{"fall of three", "+---", "uuud"},
		{"a success in between", "+--+--", "uuuuuu"},
		{"rise of two", "-++", "ddu"},
		{"a failure in between", "-+-+-", "ddddd"},
	} {
		var h Health
		got := ""
		for i, r := range c.results {
			was := h.down
			wrong := ""
			if r == '-' {
				wrong = "status 500"
			}
			if changed := h.Probe(wrong, check); changed != (was != h.down) {
				t.Errorf("%s: result %d: changed = %v", c.why, i, changed)
			}
			got += map[bool]string{true: "d", false: "u"}[h.down]
		}
		if got != c.states {
			t.Errorf("%s: %s gives %s, want %s", c.why, c.results, got, c.states)
		}
	}
}

func TestAServerThatChecksBringBackIsNotLeftOut(t *testing.T) {
	check := &config.Check{Rise: 1, Fall: 1}
	var h Health
	h.Probe("", check)
	for range 3 {
		failed(&h, at(0), "502")
	}
	h.Probe("", check)
	if h.Fit(at(1)) {
		t.Error("a passing check ended what real exchanges taught")
	}
	h.Probe("status 500", check)
	h.Probe("", check)
	if !h.Fit(at(1)) {
		t.Error("up again after it was down, and still left out")
	}
}

func TestForgetDropsWhatIsNoLongerAsked(t *testing.T) {
	var h Health
	h.Probe("status 500", &config.Check{Rise: 1, Fall: 1})
	for range 3 {
		failed(&h, at(0), "502")
	}
	h.Forget(rules)
	if h.down || h.Fit(at(1)) {
		t.Error("without checks: want up but left out")
	}
	h.Forget(&config.Pool{})
	if !h.Clean() {
		t.Error("without passive health: want nothing left")
	}
}

func TestBudgetKeepsRetriesAtAShare(t *testing.T) {
	var b budget
	for i := range 1000 {
		b.request(at(i % 10))
	}
	retry := func(now time.Time) bool {
		ok := b.allows(now, 0.2)
		if ok {
			b.retry(now)
		}
		return ok
	}
	allowed := 0
	for range 1000 {
		if retry(at(9)) {
			allowed++
		}
	}
	if want := 200 + 10*fewRetries; allowed != want {
		t.Errorf("%d retries of 1000 requests in 10 s, want %d", allowed, want)
	}
	if !retry(at(30)) {
		t.Error("nothing is forgotten after 20 s")
	}
	for range 10 * fewRetries {
		retry(at(30))
	}
	if retry(at(31)) {
		t.Error("a quiet pool retries without end")
	}
}

func TestBudgetTakesAnOlderReading(t *testing.T) {
	var b budget
	b.request(at(5))
	b.request(at(4))
	b.request(at(100))
	b.request(at(84))
	if got := b.slot(at(100)).requests.Load(); got != 2 {
		t.Errorf("the slot in use has %d requests, want 2", got)
	}
}

func TestStatusSet(t *testing.T) {
	s := parseStatusSet("200-204, 301 404-404")
	for code, want := range map[int]bool{199: false, 200: true, 204: true, 205: false, 301: true, 404: true, 500: false} {
		if s.has(code) != want {
			t.Errorf("has(%d) = %v", code, !want)
		}
	}
	if s := parseStatusSet(""); !s.has(302) || s.has(400) {
		t.Error("the default is not 200-399")
	}
}
