package engine

import (
	"net/netip"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readiness is what an epoll says of a descriptor.
type readiness uint32

const (
	canRead  = readiness(unix.EPOLLIN)
	canWrite = readiness(unix.EPOLLOUT)
	ended    = readiness(unix.EPOLLRDHUP) // the other side has closed its half
	broken   = readiness(unix.EPOLLERR | unix.EPOLLHUP)

	// watched is for connections: each change is told once. A read that was not filled
	// has found all there was only because the other side's end is told as well.
	watched = uint32(unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET)
)

// watch adds fd to an epoll. gen comes back with each event.
func watch(ep int, fd int32, gen uint32, events uint32) syscall.Errno {
	ev := unix.EpollEvent{Events: events, Fd: fd, Pad: int32(gen)}
	_, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(ep), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	return e
}

// rewatch changes what is told of fd, at once if it is so already.
func rewatch(ep int, fd int32, events uint32) {
	ev := unix.EpollEvent{Events: events, Fd: fd}
	syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(ep), unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
}

// unwatch takes fd out. Closing the only descriptor of a connection does it too.
func unwatch(ep int, fd int32) {
	syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(ep), unix.EPOLL_CTL_DEL, uintptr(fd), 0, 0, 0)
}

// ready returns how many events there are, when there are any: at once, or within about the
// time given. The scheduler is not told of that wait.
func ready(ep int, events []unix.EpollEvent, within time.Duration) int {
	wait := uintptr((within + time.Millisecond - 1) / time.Millisecond)
	n, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), wait, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

func closeFD(fd int32) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// acceptFD accepts a connection on fd.
func acceptFD(fd int) (int32, netip.AddrPort, syscall.Errno) {
	for {
		var sa unix.RawSockaddrAny
		size := uint32(unix.SizeofSockaddrAny)
		n, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if e == syscall.EINTR {
			continue
		}
		if e != 0 {
			return -1, netip.AddrPort{}, e
		}
		return int32(n), addrPort(&sa), 0
	}
}

// addrPort reads a socket address, IPv4 as such on a socket for both families.
func addrPort(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		p := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(p.Addr), swapped(p.Port))
	case unix.AF_INET6:
		p := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		a := netip.AddrFrom16(p.Addr).Unmap()
		if p.Scope_id != 0 && a.Is6() {
			a = a.WithZone(strconv.Itoa(int(p.Scope_id)))
		}
		return netip.AddrPortFrom(a, swapped(p.Port))
	}
	return netip.AddrPort{}
}

// swapped turns a port in network order into a number, and back.
func swapped(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// connectFD begins a connection; EINPROGRESS says that it is under way.
func connectFD(to netip.AddrPort) (int32, syscall.Errno) {
	family, size := uintptr(unix.AF_INET), uintptr(unix.SizeofSockaddrInet4)
	var sa4 unix.RawSockaddrInet4
	var sa6 unix.RawSockaddrInet6
	sa := unsafe.Pointer(&sa4)
	if a := to.Addr().Unmap(); a.Is4() {
		sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(to.Port()), Addr: a.As4()}
	} else {
		family, size = unix.AF_INET6, unix.SizeofSockaddrInet6
		sa6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(to.Port()), Addr: a.As16(), Scope_id: scopeOf(a.Zone())}
		sa = unsafe.Pointer(&sa6)
	}
	n, _, e := syscall.RawSyscall(syscall.SYS_SOCKET, family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if e != 0 {
		return -1, e
	}
	fd, one := int32(n), int32(1)
	syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, n, unix.IPPROTO_TCP, unix.TCP_NODELAY, uintptr(unsafe.Pointer(&one)), 4, 0)
	if _, _, e = syscall.RawSyscall(syscall.SYS_CONNECT, n, uintptr(sa), size); e != 0 && e != syscall.EINPROGRESS {
		closeFD(fd)
		return -1, e
	}
	return fd, e
}

// scopeOf returns the number of an IPv6 zone that is a number or the name of an interface.
func scopeOf(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	// A look-up of the kernel's own; it waits for nobody.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(zone)
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r) != nil {
		return 0
	}
	return r.Uint32()
}

// connectError returns what became of a connection.
func connectError(fd int32) syscall.Errno {
	n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return syscall.EBADF
	}
	return syscall.Errno(n)
}

// toItself reports whether a connection to an address of this host met no listener but
// its own other end, as TCP lets it when both ports are the same.
func toItself(fd int32) bool {
	a, err := unix.Getsockname(int(fd))
	if err != nil {
		return false
	}
	b, err := unix.Getpeername(int(fd))
	if err != nil {
		return false
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, ok := b.(*unix.SockaddrInet4)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, ok := b.(*unix.SockaddrInet6)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	}
	return false
}

// closeHalf ends our side of a connection.
func closeHalf(fd int32) syscall.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return e
}

// resetOnClose makes close tell the other side by a reset.
func resetOnClose(fd int32) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// spliceFD moves up to n bytes from one descriptor to the other; one of them is a pipe.
func spliceFD(from, to, n int) (int, syscall.Errno) {
	for {
		m, _, e := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), spliceFlags)
		if e == 0 {
			return int(m), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// cpuTime returns how much processor time the process has used.
func cpuTime() time.Duration {
	var t unix.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, unix.CLOCK_PROCESS_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}

// restFor waits about so long, or until a signal. The scheduler is not told of it.
func restFor(d time.Duration) {
	if d <= 0 {
		return
	}
	t := unix.NsecToTimespec(int64(d))
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}
