package main

import (
	"fmt"
	"time"

	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/doctor"
)

// sheds says that this node refuses what it cannot do in time.
func sheds(l proxy.Load) string {
	return fmt.Sprintf("this node does not keep up and sheds: %d refusals wait, %d exchanges were refused since its start", l.Waiting, l.Refused)
}

// loaded judges how this node copes with what it is asked for.
func loaded(l proxy.Load) doctor.Finding {
	f := doctor.Finding{Check: "overload", Level: doctor.OK, What: "it does all that it is asked for"}
	switch {
	case l.Shedding:
		f.Level, f.What = doctor.Warn, sheds(l)
		f.Why = "what it cannot do in time gets 503 (reason shed)"
		f.Cure = "more processor time (a quota of its control group?) or fewer clients (docs/HEALTH.md)"
	case l.Refused > 0:
		f.What += fmt.Sprintf("; %d exchanges were refused since its start", l.Refused)
	}
	return f
}

// shedding follows for the history when this node began to shed and when it was over. What
// comes again within lullTime is of the same time: an overload is an entry at its begin and
// one at its end.
type shedding struct {
	since, last time.Time // zero: it does not shed
	before, now uint64    // refusals
}

const lullTime = time.Minute

// look returns what is to be written down, if anything is.
func (s *shedding) look(now time.Time, l proxy.Load) string {
	more := l.Refused > s.now
	s.now = max(s.now, l.Refused)
	switch {
	case l.Shedding || more:
		s.last = now
		if s.since.IsZero() {
			s.since = now
			return "this node does not keep up: it refuses what it cannot do in time (503, reason shed)"
		}
	case !s.since.IsZero() && now.Sub(s.last) >= lullTime:
		text := fmt.Sprintf("this node keeps up again: it refused %d exchanges in %v", s.now-s.before, s.last.Sub(s.since).Round(time.Second))
		*s = shedding{before: s.now, now: s.now}
		return text
	}
	return ""
}
