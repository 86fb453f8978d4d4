package engine

import (
	"encoding/binary"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls in this file are made on non-blocking sockets, so they return at once. They
// do without the scheduler's bookkeeping for calls that may block, which costs as much
// as the short ones of them.

// readFD reads from a socket into b, which is not empty. recvfrom(2) does without what
// read(2) asks for the sake of files.
func readFD(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// writeFD writes of b, which is not empty, what the socket takes.
func writeFD(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// writeBoth writes of a and then b, neither empty, what the socket takes.
func writeBoth(fd uintptr, a, b []byte) (int, syscall.Errno) {
	iov := [2]syscall.Iovec{{Base: &a[0]}, {Base: &b[0]}}
	iov[0].SetLen(len(a))
	iov[1].SetLen(len(b))
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), 2)
		if e == 0 {
			return int(n), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// unacknowledged returns how many bytes that were written the other side has not taken.
func unacknowledged(fd uintptr) int64 {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return int64(n)
}

// hungUp reports whether the other side has closed its connection, or half of it.
func hungUp(fd uintptr) bool {
	set := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(set[:], 0)
	return err == nil && n > 0 && set[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// unread returns how long ago the last bytes came that the other side has sent, to about
// a millisecond; negative if the kernel does not say.
func unread(fd uintptr) time.Duration {
	const lastDataRecv = 52 // in struct tcp_info
	var info [lastDataRecv + 4]byte
	size := uint32(len(info))
	_, _, e := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 || int(size) < len(info) {
		return -1
	}
	return time.Duration(binary.NativeEndian.Uint32(info[lastDataRecv:])) * time.Millisecond
}
