package beat

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket is the UDP socket of one path. Two read it: a goroutine that the runtime wakes
// when something arrives, and the heartbeat's thread before it judges anyone.
type socket struct {
	fd   int
	file *os.File // owns fd
	raw  syscall.RawConn
}

// openSocket binds a socket to an address, on one interface if device is not "".
func openSocket(at netip.AddrPort, device string) (socket, error) {
	family := unix.AF_INET6
	if at.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return socket{}, os.NewSyscallError("socket", err)
	}
	s := socket{fd: fd, file: os.NewFile(uintptr(fd), "heartbeat")}
	// The socket of a path takes all addresses of its interface, and that of the address
	// in join is beside it.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && device != "" {
		err = unix.BindToDevice(fd, device)
	}
	if err == nil && device != "" {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	}
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err == nil {
		s.raw, err = s.file.SyscallConn()
	}
	if err != nil {
		s.close()
		return socket{}, err
	}
	return s, nil
}

// adopt makes a socket of one that another process, or package net, has opened.
func adopt(c *net.UDPConn) (socket, error) {
	file, err := c.File()
	if err != nil {
		return socket{}, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return socket{}, err
	}
	s := socket{file: file, raw: raw}
	// Not by file.Fd, which would make it one that blocks.
	err = raw.Control(func(fd uintptr) { s.fd = int(fd) })
	return s, err
}

func (s socket) close() { _ = s.file.Close() }

// await gives each datagram that arrives to take, until the socket is closed.
func (s socket) await(b []byte, take func(b []byte, from netip.AddrPort)) {
	var from source
	for {
		if err := s.raw.Read(func(uintptr) bool {
			n := s.receive(b, &from)
			if n > 0 {
				take(b[:n], from.addr())
			}
			return n >= 0
		}); err != nil {
			return
		}
	}
}

// move binds the socket to the interface that has the name now.
func (s socket) move(device string) error {
	return os.NewSyscallError("setsockopt", unix.BindToDevice(s.fd, device))
}

// sockaddr is the form in which the kernel has an address. One is for one caller at a time.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	six := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if i, err := net.InterfaceByName(a.Addr().Zone()); err == nil {
		six.ZoneId = uint32(i.Index)
	}
	return six
}

// send sends a datagram, or loses it, as the network may.
func (s socket) send(b []byte, to unix.Sockaddr) { _ = unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, to) }

// A source is where a datagram came from. It is read into without an allocation.
type source struct {
	raw  unix.RawSockaddrInet6 // the larger of the two
	size uint32
}

// receive takes a waiting datagram, or returns -1.
func (s socket) receive(b []byte, from *source) int {
	from.size = uint32(unsafe.Sizeof(from.raw))
	n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from.raw)), uintptr(unsafe.Pointer(&from.size)))
	if e != 0 {
		if e == unix.EAGAIN {
			return -1
		}
		return 0 // an ICMP error of an earlier datagram, or a signal
	}
	return int(n)
}

// addr returns the source's address.
func (f *source) addr() netip.AddrPort {
	if f.raw.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&f.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), order(four.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(f.raw.Addr).Unmap(), order(f.raw.Port))
}

// order turns a port from the network's byte order.
func order(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// priority is that of the thread among those that run in real time: low, for the little
// that it does may wait for the kernel's own.
const priority = 10

// realtime lets the calling thread run before all that do not run in real time.
func realtime() error {
	err := unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: priority,
		Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
	if err != nil {
		return fmt.Errorf("the heartbeat's thread does not run in real time (needs CAP_SYS_NICE, or LimitRTPRIO=%d in the unit): %w", priority, err)
	}
	return nil
}
