package upstream

import (
	"time"

	"proxyd/internal/config"
)

// Health is what is known about one server: what real exchanges taught (passive) and
// what checks found (active). It is a value without clock or lock; the Server that
// owns it gives it both.
type Health struct {
	out   barrier // failed exchanges left it out: by max_fails or eject
	times int     // it was left out in a row; grows the time that it is, with eject
	back  time.Time
	fails int       // failed exchanges since first
	first time.Time // when the oldest of them was
	row   int       // failed exchanges since one went well
	cause string    // of the last failure that counted

	circuit barrier // its breaker
	recent  window  // attempts, where eject or breaker want to know

	probed bool   // a check has been made
	down   bool   // checks say that the server is down
	run    int    // results in a row that speak against down
	found  string // what the last failed check saw
}

// Fit reports whether the server may be given an exchange now. After its time out a
// server is fit for one trial.
func (h *Health) Fit(now time.Time) bool { return !h.down && h.out.open(now) && h.circuit.open(now) }

// Barred reports whether the server's breaker forbids an exchange now. That holds even
// when no server is up and any would do.
func (h *Health) Barred(now time.Time) bool { return !h.circuit.open(now) }

// Clean reports that nothing stands against the server, so that Fit need not be asked.
func (h *Health) Clean() bool { return !h.down && h.out.lifted() && h.circuit.lifted() }

// Due returns when a server that is not fit may be so without anything happening; the
// zero time is never.
func (h *Health) Due() time.Time {
	if h.down {
		return time.Time{}
	}
	if h.circuit.until.After(h.out.until) {
		return h.circuit.until
	}
	return h.out.until
}

// Take notes that the server is given an exchange. If it is left out, this is the trial.
func (h *Health) Take(now time.Time) {
	h.out.pass(now)
	h.circuit.pass(now)
}

// Failure is what one more failed exchange led to.
type Failure uint8

const (
	Noted    Failure = iota
	LeftOut          // max_fails was reached
	Ejected          // it stood out from its pool
	Opened           // its breaker
	Excess           // max_fails was reached, and eject bounds how many may be left out
	InARow           // several failed in a row, likewise
	Frequent         // many failed, likewise, if the others fare better
)

const (
	leastAttempts = 20 // of the last ten seconds, before a share of them is judged

	// What an outlier is: so many failures in a row, or so large a share of its
	// attempts, and so many times the share of the others.
	outlierRow    = 5
	outlierShare  = 0.1
	outlierFactor = 3

	mostTimes = 10 // by which the time that an outlier is left out grows
)

// Fail counts a failed exchange, of which the attempt is counted now too or was before
// (attempts is 1 or 0).
//
// As in nginx, max_fails failures within fail_timeout leave the server out, whatever
// succeeded between them; a failed trial leaves it out again. With eject the pool has the
// last word: see Eject.
func (h *Health) Fail(now time.Time, c *config.Pool, cause string, attempts int32) Failure {
	h.cause = cause
	h.row++
	if c.Eject != nil || c.Breaker != nil {
		h.recent.add(now, attempts, 1)
	}
	if h.breaks(now, c.Breaker) {
		return Opened
	}
	switch {
	case h.out.trying():
		h.leave(now, c)
		return Noted
	case !h.out.lifted(): // it was begun before
		h.out.shut(now, h.out.span)
		return Noted
	}
	switch excess := h.exceeds(now, c.Passive); {
	case excess && c.Eject == nil:
		h.leave(now, c)
		return LeftOut
	case excess:
		return Excess
	case c.Eject == nil:
	case h.row >= outlierRow:
		return InARow
	default:
		if t := h.recent.sum(now); t.attempts >= leastAttempts && t.share() >= outlierShare {
			return Frequent
		}
	}
	return Noted
}

// exceeds counts a failure for max_fails and reports whether that is reached.
func (h *Health) exceeds(now time.Time, p config.Passive) bool {
	if p.MaxFails <= 0 {
		return false
	}
	if h.fails == 0 || now.Sub(h.first) > p.FailTimeout {
		h.fails, h.first = 0, now
	}
	h.fails++
	return h.fails >= p.MaxFails
}

// breaks reports whether a failure opens the breaker. After its time it is half open:
// one exchange is let through, and its failure opens it again.
func (h *Health) breaks(now time.Time, c *config.Breaker) bool {
	switch {
	case c == nil:
		return false
	case h.circuit.lifted():
		t := h.recent.sum(now)
		if t.attempts < leastAttempts || t.share() < float64(c.Errors) {
			return false
		}
	case !h.circuit.trying():
		return false // it was begun before the breaker opened
	}
	h.circuit.shut(now, c.Open)
	h.recent = window{}
	return true
}

// leave leaves the server out: for fail_timeout, and with eject for as many times that
// as it was left out in a row. Each fail_timeout that it then stays takes one off.
func (h *Health) leave(now time.Time, c *config.Pool) {
	span := c.Passive.FailTimeout
	if c.Eject != nil && span > 0 {
		if h.out.lifted() {
			h.times = max(h.times-int(now.Sub(h.back)/span), 0)
		}
		h.times = min(h.times+1, mostTimes)
		span *= time.Duration(h.times)
	}
	h.fails, h.row = 0, 0
	h.recent = window{}
	h.out.shut(now, span)
}

// Eject leaves the server out after a failure that said Excess, InARow or Frequent, and
// returns which of LeftOut and Ejected that is.
func (h *Health) Eject(now time.Time, c *config.Pool, f Failure) Failure {
	if !h.out.lifted() {
		return Noted // by another failure, meanwhile
	}
	h.leave(now, c)
	if f == Excess {
		return LeftOut
	}
	return Ejected
}

// Succeed notes an exchange, begun then, that did not fail, and reports whether it was a
// trial that brings the server back.
func (h *Health) Succeed(now, begun time.Time, c *config.Pool) bool {
	h.row = 0
	if c.Eject != nil || c.Breaker != nil {
		h.recent.add(now, 1, 0)
	}
	back := h.out.succeed(begun)
	if back {
		h.fails, h.back = 0, now
	}
	if h.circuit.succeed(begun) {
		h.recent = window{}
		back = true
	}
	return back
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
		h.forgive()
		h.circuit = barrier{}
	}
	return true
}

// forgive ends what failed exchanges led to, but for the breaker.
func (h *Health) forgive() { h.out, h.fails, h.row, h.times = barrier{}, 0, 0, 0 }

// Forget drops what a configuration no longer asks for: without checks nothing may
// keep a server down, without passive health nothing may leave it out, without a breaker
// none is open.
func (h *Health) Forget(c *config.Pool) {
	if c.Check == nil {
		h.probed, h.down, h.run = false, false, 0
	}
	if c.Passive.MaxFails <= 0 && c.Eject == nil {
		h.forgive()
	}
	if c.Breaker == nil {
		h.circuit = barrier{}
	}
}

// State returns up, down (checks say so), open or half-open (its breaker) or ejected
// (exchanges failed), and why.
func (h *Health) State(now time.Time) (state, why string) {
	switch {
	case h.down:
		return "down", h.found
	case h.circuit.trying() || !h.circuit.lifted() && h.circuit.open(now):
		return "half-open", h.cause
	case !h.circuit.lifted():
		return "open", h.cause
	case !h.out.lifted():
		return "ejected", h.cause
	}
	return "up", ""
}
