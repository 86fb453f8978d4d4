// Package datagram sends and receives UDP datagrams without a word to Go's scheduler. None of
// its calls waits, so there is nothing that it must know: told of a system call, it wakes its
// monitor thread, which then looks around every 20 us until all is at rest again. With a
// call in each beat that was a third of what an idle node took.
package datagram

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Endpoint is where a datagram goes, or came from, in the form that the kernel has. It is
// read into without an allocation.
type Endpoint struct {
	raw  unix.RawSockaddrInet6 // the larger of the two
	size uint32
}

// EndpointOf returns the endpoint of an address.
func EndpointOf(a netip.AddrPort) *Endpoint {
	e := &Endpoint{size: unix.SizeofSockaddrInet6}
	if a.Addr().Is4() {
		e.size = unix.SizeofSockaddrInet4
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&e.raw)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: order(a.Port()), Addr: a.Addr().As4()}
		return e
	}
	e.raw = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: order(a.Port()), Addr: a.Addr().As16()}
	if i, err := net.InterfaceByName(a.Addr().Zone()); err == nil {
		e.raw.Scope_id = uint32(i.Index)
	}
	return e
}

// Addr returns the endpoint's address.
func (e *Endpoint) Addr() netip.AddrPort {
	if e.raw.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&e.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), order(four.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(e.raw.Addr).Unmap(), order(e.raw.Port))
}

// order turns a port from the network's byte order, or into it.
func order(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// Bind binds a socket to an address.
func Bind(fd int, at netip.AddrPort) error {
	e := EndpointOf(at)
	if _, _, code := syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&e.raw)), uintptr(e.size)); code != 0 {
		return os.NewSyscallError("bind", code)
	}
	return nil
}

// Send sends a datagram. It is lost where there is no room for it, as the network may lose it.
func Send(fd int, b []byte, to *Endpoint) error {
	_, _, code := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
	if code != 0 {
		return os.NewSyscallError("sendto", code)
	}
	return nil
}

// Receive takes a waiting datagram and returns its size, -1 if none waits, 0 if there was an
// error: that of an earlier datagram, or a signal. b must not be empty.
func Receive(fd int, b []byte, from *Endpoint) int {
	from.size = uint32(unsafe.Sizeof(from.raw))
	n, _, code := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from.raw)), uintptr(unsafe.Pointer(&from.size)))
	switch code {
	case 0:
		return int(n)
	case unix.EAGAIN:
		return -1
	}
	return 0
}
