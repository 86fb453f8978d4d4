package engine

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Socket is a listening socket that event loops can wait for. It is not with Go's
// poller, which would be woken for each connection; Accept, which an engine without
// loops calls, brings it there.
type Socket struct {
	address net.Addr

	mu   sync.RWMutex // held for reading while fd is in use; guards what follows
	fd   int          // -1 when closed
	gone []func(fd int)
	slow net.Listener // for Accept
}

// NewSocket takes l over: l is closed, and the Socket stands for it.
func NewSocket(l *net.TCPListener) (*Socket, error) {
	fd, err := dupOf(l)
	if err != nil {
		return nil, err
	}
	address := l.Addr()
	l.Close()
	// Accepted connections inherit it.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return &Socket{address: address, fd: fd}, nil
}

// dupOf returns a second descriptor of what c has.
func dupOf(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dupErr := -1, error(nil)
	err = raw.Control(func(from uintptr) { fd, dupErr = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil && dupErr != nil {
		err = os.NewSyscallError("fcntl", dupErr)
	}
	return fd, err
}

// Share returns a second handle of the same socket. Closing one leaves the other, with
// all connections that wait to be accepted.
func (s *Socket) Share() (*Socket, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return nil, net.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &Socket{address: s.address, fd: fd}, nil
}

// File returns a second handle of the same socket as a file, for another process. It stays
// non-blocking: that is a property of the socket, which both have.
func (s *Socket) File() (*os.File, error) {
	o, err := s.Share()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(o.fd), s.address.String()), nil
}

// Addr implements net.Listener.
func (s *Socket) Addr() net.Addr { return s.address }

// Close implements net.Listener. Whoever waits for the socket is told before it returns.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	for _, tell := range s.gone {
		tell(s.fd)
	}
	if s.slow != nil {
		s.slow.Close()
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return err
}

// attend has gone called before the descriptor is closed.
func (s *Socket) attend(gone func(fd int)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	s.gone = append(s.gone, gone)
	return nil
}

// whileOpen calls do while the descriptor cannot be closed, and reports whether it is
// open.
func (s *Socket) whileOpen(do func()) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return false
	}
	do()
	return true
}

// accept takes a connection in, if one is there. The error is EBADF when s is closed.
func (s *Socket) accept() (int32, netip.AddrPort, syscall.Errno) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return -1, netip.AddrPort{}, syscall.EBADF
	}
	return acceptFD(s.fd)
}

// Accept implements net.Listener.
func (s *Socket) Accept() (net.Conn, error) {
	l, err := s.listener()
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: s.address, Err: err}
	}
	return l.Accept()
}

func (s *Socket) listener() (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, net.ErrClosed
	}
	if s.slow == nil {
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		f := os.NewFile(uintptr(fd), s.address.String())
		defer f.Close()
		if s.slow, err = net.FileListener(f); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	return s.slow, nil
}
