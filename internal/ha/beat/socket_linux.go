package beat

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"proxyd/internal/ha/datagram"
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
		err = datagram.Bind(fd, at)
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
	var from datagram.Endpoint
	for {
		if err := s.raw.Read(func(uintptr) bool {
			n := datagram.Receive(s.fd, b, &from)
			if n > 0 {
				take(b[:n], from.Addr())
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
