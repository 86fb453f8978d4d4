// Package clock reads the one clock by which leases are judged: CLOCK_BOOTTIME,
// which no administrator can step and which goes on while the machine is suspended.
package clock

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Instant is a reading of this node's boot-time clock, in nanoseconds since boot.
// Instants of two nodes, or of two boots of one node, cannot be compared.
type Instant int64

// Now reads the clock. It follows no false clock of a test: parts that are tested
// in virtual time are handed their instants or a function like this one.
func Now() Instant {
	var t unix.Timespec
	// CLOCK_BOOTTIME exists on every kernel this program runs on (2.6.39), and the
	// call has no other way to go wrong. It never waits, so the scheduler need not know.
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&t)), 0)
	return Instant(t.Nano())
}

// Next returns how long it is to the next instant that is a multiple of every. What is done
// now and then waits for that: all that is due within a second then wakes an idle process
// once, which costs it more than most of what is done.
func Next(every time.Duration) time.Duration { return every - time.Duration(Now())%every }

// Add returns t moved by d.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns how long after u t is.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }
