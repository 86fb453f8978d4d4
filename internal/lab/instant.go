package lab

import (
	"time"

	"golang.org/x/sys/unix"
)

// An Instant is a point on CLOCK_MONOTONIC in nanoseconds. Every process of the lab
// reads the same clock, so instants of the load and of the watcher can be compared.
type Instant int64

// Now reads the clock.
func Now() Instant {
	var ts unix.Timespec
	// It cannot fail: the clock exists and the pointer is good.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return Instant(ts.Nano())
}

// Sub returns how long after u the instant i is.
func (i Instant) Sub(u Instant) time.Duration { return time.Duration(i - u) }

// Add returns the instant d after i.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }
