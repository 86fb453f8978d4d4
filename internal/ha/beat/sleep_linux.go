package beat

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The runtime keeps the names of these two for programs that need them (go.dev/issue/67401).
//
//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// sleep has the kernel wake this thread after d, or when a signal comes.
//
// It is not a timer of the runtime, for then somebody else would have to notice that it is
// due. Nor is it a system call as any: for one that the runtime knows nothing of it keeps a
// place to run Go code free for 10 ms, and its monitor thread looks 50 times whether the
// call has ended, which was half of what an idle node took. This one says that it blocks.
//
//go:norace
//go:nosplit
func sleep(d time.Duration) {
	pause := unix.NsecToTimespec(int64(d))
	entersyscallblock()
	_, _, _ = syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
	exitsyscall()
}
