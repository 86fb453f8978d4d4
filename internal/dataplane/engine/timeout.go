package engine

import (
	"time"
)

// A moment is nanoseconds since the process began: cheaper to read and to compare than a
// time.Time. 0 is none.
type moment int64

var processStart = time.Now()

// now reads the monotonic clock.
func now() moment { return moment(time.Since(processStart)) }

// momentOf returns when t is, a reading of this process's clock.
func momentOf(t time.Time) moment { return moment(t.Sub(processStart)) }

// time returns m as the net package wants deadlines.
func (m moment) time() time.Time { return processStart.Add(time.Duration(m)) }

// first returns the earlier of two moments, of which 0 is never.
func first(a, b moment) moment {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// A limit is how long one direction of a connection may keep us waiting. The zero limit
// is none.
type limit struct {
	each  time.Duration // between two successes; 0 is no limit
	late  error         // when each is over
	until moment        // the end of it all; 0 is never
	over  error         // when until has come
	since moment        // the last success, or when the waiting began
	pace  *pace         // the least speed; nil is none

	// also returns when, of what another goroutine does, there was a success: at t if
	// it is not for this direction to wait. nil is never.
	also func(t moment) moment
}

// within makes l end at until, with over, if that comes first. 0 is never.
func (l *limit) within(until moment, over error) {
	if until != 0 && (l.until == 0 || until < l.until) {
		l.until, l.over = until, over
	}
}

// due returns when a wait that began at t must end; 0 is never.
func (l *limit) due(t moment) moment {
	m := l.until
	if l.each > 0 {
		m = first(m, l.since+moment(l.each))
	}
	if l.pace != nil {
		m = first(m, l.pace.due(t))
	}
	return m
}

// A pace is the least speed of a client, averaged over a window of the time that we
// waited for it (E1 of the threat list): what the server takes does not count.
type pace struct {
	rate   int           // bytes a second; 0 is no limit
	window time.Duration // over which it is averaged
	waited time.Duration // of this window
	moved  int64         // bytes, in this window
	excuse func() bool   // nil, or whether the client need not send yet
}

func (p *pace) due(t moment) moment {
	if p.rate <= 0 || p.window <= 0 {
		return 0
	}
	return t + moment(p.window-p.waited)
}

// least returns how many bytes are enough for a window.
func (p *pace) least() int64 { return int64(float64(p.rate) * p.window.Seconds()) }

// add notes a wait in which n bytes moved, and reports whether the speed will do.
func (p *pace) add(waited time.Duration, n int64) bool {
	p.waited += waited
	p.moved += n
	if p.rate <= 0 || p.waited < p.window {
		return true
	}
	enough := p.moved >= p.least() || p.excuse != nil && p.excuse()
	p.waited, p.moved = 0, 0
	return enough
}
