package vip

import (
	"testing"
	"time"

	"proxyd/internal/clock"
)

func TestScheduleSkipsWhatIsOverdue(t *testing.T) {
	var s schedule
	start := clock.Instant(time.Hour)
	s.restart(start)
	if got := s.due(); got != start {
		t.Errorf("the first is due %v after the start, want at once", got.Sub(start))
	}
	// Kept from running until after the rounds at 0.1, 1.1 and 2.2 s.
	s.made(start.Add(2500 * time.Millisecond))
	if got := s.due().Sub(start); got != 3300*time.Millisecond {
		t.Errorf("after a round at 2.5s the next is due at %v, want 3.3s: one round for all that were missed", got)
	}
	s.made(start.Add(5 * time.Minute))
	if got := s.due().Sub(start); got != 5*time.Minute+30*time.Second {
		t.Errorf("after a round at 5m the next is due at %v, want 5m30s", got)
	}
}
