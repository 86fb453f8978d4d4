package upstream

import (
	"time"

	"proxyd/internal/config"
)

// Health is what is known about one server: what real exchanges taught (passive) and
// what checks found (active). It is a value without clock or lock; the Server that
// owns it gives it both.
type Health struct {
	fails int       // failed exchanges since first
	first time.Time // when the oldest of them was
	until time.Time // left out until then; zero: not left out
	trial bool      // left out, but one exchange was let through to see
	cause string    // of the last failure that counted

	probed bool   // a check has been made
	down   bool   // checks say that the server is down
	run    int    // results in a row that speak against down
	found  string // what the last failed check saw
}

// Fit reports whether the server may be given an exchange now. After its time out a
// server is fit for one trial.
func (h *Health) Fit(now time.Time) bool {
	return !h.down && (h.until.IsZero() || !now.Before(h.until))
}

// Clean reports that nothing stands against the server, so that Fit need not be asked.
func (h *Health) Clean() bool { return !h.down && h.until.IsZero() }

// Take notes that the server is given an exchange. If it is left out, this is the
// trial: no other follows until it is over or another fail_timeout has passed.
func (h *Health) Take(now time.Time, p config.Passive) {
	if !h.until.IsZero() {
		h.until, h.trial = now.Add(p.FailTimeout), true
	}
}

// Fail counts a failed exchange and reports whether it made the server be left out.
// As in nginx, max_fails failures within fail_timeout leave it out, whatever succeeded
// between them; a failed trial leaves it out again.
func (h *Health) Fail(now time.Time, p config.Passive, cause string) bool {
	if p.MaxFails <= 0 {
		return false
	}
	h.cause = cause
	if !h.until.IsZero() {
		h.until, h.trial = now.Add(p.FailTimeout), false
		return false
	}
	if h.fails == 0 || now.Sub(h.first) > p.FailTimeout {
		h.fails, h.first = 0, now
	}
	h.fails++
	if h.fails < p.MaxFails {
		return false
	}
	h.fails, h.until = 0, now.Add(p.FailTimeout)
	return true
}

// Succeed notes an exchange that did not fail and reports whether it was the trial
// that brings the server back. An exchange begun before the server was left out
// proves nothing.
func (h *Health) Succeed() bool {
	if !h.trial {
		return false
	}
	h.until, h.trial, h.fails = time.Time{}, false, 0
	return true
}

// Probe notes the result of a check ("" is well, otherwise what was wrong) and reports
// whether it changed the server's state. The first result decides at once; later ones
// need rise or fall of them in a row.
func (h *Health) Probe(wrong string, c *config.Check) bool {
	ok := wrong == ""
	if !ok {
		h.found = wrong
	}
	if !h.probed {
		h.probed, h.down, h.run = true, !ok, 0
		return h.down
	}
	if ok != h.down {
		h.run = 0
		return false
	}
	h.run++
	if h.down && h.run < c.Rise || !h.down && h.run < c.Fall {
		return false
	}
	h.down, h.run = !h.down, 0
	if !h.down {
		h.until, h.trial, h.fails = time.Time{}, false, 0
	}
	return true
}

// Forget drops what a configuration no longer asks for: without checks nothing may
// keep a server down, without passive health nothing may leave it out.
func (h *Health) Forget(p config.Passive, c *config.Check) {
	if c == nil {
		h.probed, h.down, h.run = false, false, 0
	}
	if p.MaxFails <= 0 {
		h.until, h.trial, h.fails = time.Time{}, false, 0
	}
}

// State returns up, down (checks say so) or ejected (exchanges failed), and why.
func (h *Health) State() (state, why string) {
	switch {
	case h.down:
		return "down", h.found
	case !h.until.IsZero():
		return "ejected", h.cause
	}
	return "up", ""
}
