package vip

import (
	"time"

	"proxyd/internal/clock"
)

// spacing is when announcements follow a takeover. Linux ignores a second announcement
// within about a second (locktime), and any of them may be lost: so the ones at 1.1, 2.2
// and 3.3 s each get past a locktime that the one before has started, and the later ones
// are for switches and hosts that were restarting themselves.
var spacing = [...]time.Duration{
	0, 100 * time.Millisecond, 1100 * time.Millisecond, 2200 * time.Millisecond, 3300 * time.Millisecond,
	5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second,
}

// steady is the pause between announcements once spacing is through.
const steady = 60 * time.Second

// A schedule says when the next announcement is due. The zero value is due at once
// after restart was called.
type schedule struct {
	start clock.Instant
	n     int // announcements that lie behind
}

// restart begins the schedule anew at now.
func (s *schedule) restart(now clock.Instant) { *s = schedule{start: now} }

// due returns when the next announcement is to be made.
func (s *schedule) due() clock.Instant {
	if s.n < len(spacing) {
		return s.start.Add(spacing[s.n])
	}
	last := spacing[len(spacing)-1]
	return s.start.Add(last + time.Duration(s.n-len(spacing)+1)*steady)
}

// made says that an announcement was made at now. Those that should have been made by
// then are skipped: two in a row would only tell the same thing twice within a locktime.
func (s *schedule) made(now clock.Instant) {
	for s.due() <= now {
		s.n++
	}
}
