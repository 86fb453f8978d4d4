package engine

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/proxyheader"
)

// A fronted reads the PROXY header of a connection. It looks at what has come without
// taking it, since what follows the header is not its own.
type fronted struct {
	said proxyheader.Header
	err  error // io.EOF: the other side has ended
}

// look reads the header, into b for a while, if it is there or it is plain that it will not
// be. It returns false if more must come.
func (f *fronted) look(fd uintptr, b *[bufferBytes]byte) bool {
	for ended := false; ; ended = true {
		n, e := peekFD(fd, b[:proxyheader.MaxBytes])
		size := 0
		switch {
		case e == syscall.EAGAIN:
			return false
		case e != 0:
			f.err = os.NewSyscallError("read", e)
			return true
		case n == 0:
			f.err = io.EOF
			return true
		}
		if f.said, size, f.err = proxyheader.Parse(b[:n]); size > 0 {
			readFD(fd, b[:size]) // they are there
			return true
		}
		switch {
		case f.err != nil:
			return true
		case ended:
			f.err = io.EOF
			return true
		case !hungUp(fd):
			return false
		}
	}
}

// client returns whose connection it is on which peer said this.
func (f *fronted) client(peer netip.AddrPort) netip.AddrPort {
	if f.said.Client.IsValid() {
		return f.said.Client
	}
	return peer
}

// local returns where the client connected to, if the header says so.
func (f *fronted) local() *netip.AddrPort {
	if !f.said.Local.IsValid() {
		return nil
	}
	at := f.said.Local
	return &at
}

// front reads the header of the proxy that the connection is from, and has its client
// admitted. It returns false when the connection is over.
func (c *clientConn) front() bool {
	l := limit{over: errHeadTime}
	if h := c.listener.Limits.HeaderTime; h > 0 {
		l.until = c.began + moment(h)
	}
	if c.engine.draining.Load() {
		l.within(now()+moment(c.engine.conf.IdleGrace), errDrainNow)
	}
	var f fronted
	err := c.await(&c.in, func(fd uintptr) bool {
		b := getBuffer()
		defer putBuffer(b)
		return f.look(fd, b)
	}, &l)
	if err == nil {
		err = f.err
	}
	c.mu.Lock()
	c.resume(errDrainNow)
	c.mu.Unlock()
	peer, front := c.peer, c.listener.Front
	c.peer, c.named = f.client(peer), f.local()
	c.why = frontClosing(err)
	c.inside = front.Heard(c.listener, peer, c.peer, err) && c.handler.Admit(c.listener, c.peer)
	return c.inside
}

// frontClosing says what the end of a wait for a header means.
func frontClosing(err error) dataplane.Closing {
	if errors.Is(err, io.EOF) {
		return dataplane.ClosedClient
	}
	return closing(err)
}

// peekFD is readFD, but for taking what it reads.
func peekFD(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_PEEK, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}
