package beat

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
)

// The runtime keeps the names of these two for programs that need them (go.dev/issue/67401).
//
//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// sleep has the kernel wake this thread at next, and each beat after that, until it sees
// that there is something to do; it returns by how much the kernel was late at the worst.
//
// It is not a timer of the runtime, for then somebody else would have to notice that it is
// due. Nor is it a system call as any: for one that the runtime knows nothing of it keeps a
// place to run Go code free for 10 ms, and its monitor thread looks 50 times whether the
// call has ended, which was half of what an idle node took. This one says that it blocks.
// Coming back from it wakes the monitor too, so it looks around before it does.
//
// Between the two calls of the runtime this thread has no place to run Go code. What is
// there allocates nothing, has no write barrier and calls nothing that could want more
// stack: raw system calls, and operations of the processor.
//
//go:norace
//go:nosplit
func (t *thread) sleep(next clock.Instant, beat time.Duration, peers []lately) (late time.Duration) {
	at, step := unix.NsecToTimespec(int64(next)), unix.NsecToTimespec(int64(beat))
	var now unix.Timespec
	entersyscallblock()
	for looks := 1; ; {
		_, _, _ = syscall.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_BOOTTIME, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&at)), 0, 0, 0)
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&now)), 0)
		if now.Sec < at.Sec || now.Sec == at.Sec && now.Nsec < at.Nsec {
			continue // a signal
		}
		late = max(late, time.Duration(now.Sec-at.Sec)*time.Second+time.Duration(now.Nsec-at.Nsec))
		well := looks < looksAtMost
		for _, l := range peers {
			for i := range l {
				// All of them are cleared, for the next look.
				well = take(&l[i]) && well
			}
		}
		if !well || take(&t.ending) {
			break
		}
		looks++
		at.Sec, at.Nsec = at.Sec+step.Sec, at.Nsec+step.Nsec
		if at.Nsec >= 1e9 {
			at.Sec, at.Nsec = at.Sec+1, at.Nsec-1e9
		}
	}
	exitsyscall()
	return late
}
