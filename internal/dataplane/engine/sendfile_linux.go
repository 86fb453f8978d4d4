package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
)

// sayFile implements client: it sends the head of r and the part of a file that is its body. A small
// part goes with the head in one write; a larger one never comes into this process.
// A file that has become shorter ends the connection within the body.
func (c *clientConn) sayFile(r *dataplane.Response, s *dataplane.FileSection) error {
	d := c.desk
	d.out = c.appendHead(d.out[:0], r, false)
	if s.Size <= spliceFrom {
		buf := getBuffer()
		defer putBuffer(buf)
		n, err := s.File.ReadAt(buf[:s.Size], s.From)
		if int64(n) < s.Size {
			return shortFile(err)
		}
		return c.say(d.out, buf[:n], true)
	}
	if c.tls != nil { // the kernel has no keys
		if err := c.say(d.out, nil, false); err != nil {
			return err
		}
		return c.copyFile(s.File, s.From, s.Size)
	}
	if err := c.sayHead(d.out); err != nil {
		return err
	}
	p := c.clientPace()
	l := limit{pace: &p, late: dataplane.ErrClientSlow}
	for from, left := s.From, s.Size; left > 0; {
		n, err := c.sendFile(s.File, from, left, &l)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			return c.copyFile(s.File, from, left)
		}
		var side *spliceError
		switch {
		case errors.As(err, &side) && side.writing:
			return lost(c, side.err)
		case err != nil:
			return shortFile(err)
		}
		from += n
		left -= n
		d.x.Bytes.Out += n
		l.since = now()
	}
	return nil
}

// sayHead writes a head that more follows at once, so that the kernel may wait with it.
func (c *clientConn) sayHead(head []byte) error {
	p := c.clientPace()
	l := limit{pace: &p, late: dataplane.ErrClientSlow}
	n, e := writeMore(c.fd, head)
	if err := c.wire.rest(head, n, e, &l); err != nil {
		return lost(c, err)
	}
	c.desk.x.Bytes.Out += int64(len(head))
	return nil
}

// sendFile moves up to n bytes of f to the socket in the kernel (sendfile(2)). A failure
// of the socket is a *spliceError.
func (w *wire) sendFile(f *os.File, from, n int64, l *limit) (took int64, err error) {
	var fault error
	file := int(f.Fd())
	step := func(fd uintptr) bool {
		at := from
		var m int
		for {
			m, fault = unix.Sendfile(int(fd), file, &at, int(min(n, sendfileBytes)))
			if fault != unix.EINTR {
				break
			}
		}
		if fault == unix.EAGAIN {
			return false
		}
		took = int64(max(m, 0))
		w.out.n = int(took)
		return true
	}
	defer runtime.KeepAlive(f)
	w.out.n = 0
	if !step(w.fd) {
		w.out.n = int(unacknowledged(w.fd))
		if err := w.await(&w.out, step, l); err != nil {
			return 0, &spliceError{writing: true, err: err}
		}
	}
	switch {
	case fault == unix.EPIPE || fault == unix.ECONNRESET || fault == unix.ETIMEDOUT:
		return 0, &spliceError{writing: true, err: os.NewSyscallError("sendfile", fault)}
	case fault != nil:
		return 0, os.NewSyscallError("sendfile", fault)
	case took == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return took, nil
}

// sendfileBytes is how much one call is asked to move.
const sendfileBytes = 1 << 20

// copyFile sends what is left of a file that the kernel cannot send by itself.
func (c *clientConn) copyFile(f *os.File, from, left int64) error {
	buf := getBuffer()
	defer putBuffer(buf)
	for left > 0 {
		n, err := f.ReadAt(buf[:min(left, bufferBytes)], from)
		if n == 0 {
			return shortFile(err)
		}
		if err := c.say(c.desk.out[:0], buf[:n], false); err != nil {
			return err
		}
		from += int64(n)
		left -= int64(n)
	}
	return nil
}

// shortFile says why a file did not yield what its size promised.
func shortFile(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		err = errShortBody
	}
	return fmt.Errorf("read a file: %w", err)
}

// writeMore is writeFD for what more bytes follow at once (MSG_MORE of send(2)).
func writeMore(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			syscall.MSG_MORE|syscall.MSG_NOSIGNAL, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}
