package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// A secure is TLS upon a wire: crypto/tls between what is said and what crosses the
// socket. While nothing is on its way it holds no buffer of ours.
//
// After the handshake a read never waits: where the socket has nothing crypto/tls is told
// of a temporary error, keeps what it has of a record, and is asked again when there is
// more (TestATemporaryErrorIsNotTheEnd). What it wants to send is gathered and goes out by
// the wire, so that every limit of a wire holds. It is the net.Conn of its tls.Conn.
//
// At an event loop there is no wire: loop_secure.go has what is done there.
type secure struct {
	wire   *wire // nil: it is a loop's
	feed   feed  // what a loop knows of what is there to be read
	conn   *tls.Conn
	shake  *limit         // of the handshake while there is one upon a wire
	shaker *shaker        // likewise, at a loop
	peer   netip.AddrPort // whose it is, at a loop
	turns  chan struct{}  // a place in it for each handshake that may compute at once

	// What a server of TLS 1.3 thinks of our side of the handshake it can only say after it.
	// judge is told of an error in the place of the first byte, and puts it into words.
	judge func(error) error

	fault error // why nothing can be read any more; belongs to who reads
	cut   bool  // the socket came to its end before that was said; likewise
	torn  bool  // no farewell is said any more, or none must be: the end would look like a good one; belongs to the owner
	moved bool  // the socket has taken something since turn began; belongs to who writes

	mu  sync.Mutex // guards what follows: a reader may have to send something too
	out []byte     // sealed, not sent
}

const (
	// sealedBytes is what a full buffer and the head before it become.
	sealedBytes = bufferBytes + 512
	// maxSealed bounds what a reader may leave to be sent: a client that asks for new keys
	// all the time and takes no answer is not waited for.
	maxSealed = 4 * bufferBytes
)

// sealed is a cache without a meaning of its own. shells has the pointers by which a cache holds
// slices, while those are elsewhere: to make one for each that is given back would be garbage.
var (
	sealed = sync.Pool{New: func() any { b := make([]byte, 0, sealedBytes); return &b }}
	shells = sync.Pool{New: func() any { return new([]byte) }}
)

// errNotYet is what crypto/tls is told when the socket has nothing.
var errNotYet net.Error = notYet{}

type notYet struct{}

func (notYet) Error() string   { return "nothing to read yet" }
func (notYet) Timeout() bool   { return true }
func (notYet) Temporary() bool { return true }

var errSealed = errors.New("the other side has us send without end and takes nothing")

// begin has a handshake, by the tls.Conn that of makes upon s.
func (s *secure) begin(l limit, of func(net.Conn) *tls.Conn) error {
	s.shake = &l
	s.conn = of(s)
	s.turns <- struct{}{}
	defer func() { <-s.turns }()
	err := s.conn.Handshake()
	if err == nil {
		err = s.flush(s.shake)
	}
	s.shake = nil
	return err
}

// Read implements net.Conn for crypto/tls.
func (s *secure) Read(b []byte) (int, error) {
	if s.wire == nil || len(s.feed.rest) > 0 {
		n, err := s.feed.read(b)
		for err == errNotYet && s.shaker != nil {
			if err = s.shaker.wait(); err == nil {
				n, err = s.feed.read(b)
			}
		}
		if k := s.shaker; k != nil && k.hears {
			k.heard = append(k.heard, b[:n]...)
		}
		return n, err
	}
	n, err := s.readWire(b)
	return s.feed.pass(b[:n]), err // a loop may have the connection later
}

func (s *secure) readWire(b []byte) (int, error) {
	n, e := readFD(s.wire.fd, b)
	switch {
	case e == syscall.EAGAIN && s.shake != nil:
		return s.wait(b)
	case e == syscall.EAGAIN:
		return 0, errNotYet
	case e != 0:
		return 0, os.NewSyscallError("read", e)
	case n == 0:
		s.cut = true
		return 0, io.EOF
	}
	return n, nil
}

// wait is Read within a handshake, where it is the other side's turn. It gives the place
// among those that compute to another.
func (s *secure) wait(b []byte) (int, error) {
	<-s.turns
	defer func() { s.turns <- struct{}{} }()
	if err := s.flush(s.shake); err != nil {
		return 0, err
	}
	w := s.wire
	err := w.await(&w.in, func(fd uintptr) bool {
		w.in.n, w.in.errno = readFD(fd, b)
		return w.in.errno != syscall.EAGAIN
	}, s.shake)
	return w.got(err)
}

// Write implements net.Conn for crypto/tls.
func (s *secure) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out)+len(b) > maxSealed {
		return 0, errSealed
	}
	if s.out == nil {
		shell := sealed.Get().(*[]byte)
		s.out, *shell = *shell, nil
		shells.Put(shell)
	}
	s.out = append(s.out, b...)
	return len(b), nil
}

// take returns what is sealed and not sent.
func (s *secure) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.out
	s.out = nil
	return out
}

// flush sends what is sealed.
func (s *secure) flush(l *limit) error {
	out := s.take()
	if len(out) == 0 {
		return nil
	}
	n, e := writeFD(s.wire.fd, out)
	s.moved = s.moved || n > 0
	err := s.wire.rest(out, n, e, l)
	if err != nil {
		s.torn = true // within a record, maybe
	}
	giveSealed(out)
	return err
}

func giveSealed(out []byte) {
	if c := cap(out); c > 0 && c <= 2*sealedBytes {
		shell := shells.Get().(*[]byte)
		*shell = out[:0]
		sealed.Put(shell)
	}
}

// recv is readFD for what was said. EPROTO means that fault says why there is nothing.
func (s *secure) recv(b []byte) (int, syscall.Errno) {
	n, err := s.conn.Read(b)
	switch {
	case n > 0, err == io.EOF:
		s.judge = nil
		return n, 0
	case errors.Is(err, errNotYet):
		return 0, syscall.EAGAIN
	}
	if s.judge != nil {
		err = s.judge(err)
		s.judge = nil
	}
	s.fault = err
	return 0, syscall.EPROTO
}

// send sends all of a and b.
func (s *secure) send(a, b []byte, l *limit) error {
	for len(a)+len(b) > 0 {
		n := min(len(a), bufferBytes)
		m := min(len(b), bufferBytes-n)
		for _, part := range [...][]byte{a[:n], b[:m]} {
			if len(part) == 0 {
				continue
			}
			if _, err := s.conn.Write(part); err != nil {
				return err
			}
		}
		a, b = a[n:], b[m:]
		if err := s.flush(l); err != nil {
			return err
		}
	}
	return nil
}

// part says that nothing more is sent, as far as the socket takes that at once.
func (s *secure) part() {
	if s.torn {
		return
	}
	_ = s.conn.CloseWrite() // nothing to say before the end of a handshake
	if out := s.take(); len(out) > 0 {
		writeFD(s.wire.fd, out)
		giveSealed(out)
	}
}

// The rest of net.Conn. The wire has the deadlines, and its owner closes it. Addresses are
// asked for in a handshake alone.

func (s *secure) Close() error { return nil }
func (s *secure) LocalAddr() net.Addr {
	if s.wire == nil {
		return net.TCPAddrFromAddrPort(localPortOf(s.feed.fd))
	}
	return s.wire.tcp.LocalAddr()
}
func (s *secure) RemoteAddr() net.Addr {
	if s.wire == nil {
		return net.TCPAddrFromAddrPort(s.peer)
	}
	return s.wire.tcp.RemoteAddr()
}
func (s *secure) SetDeadline(time.Time) error      { return nil }
func (s *secure) SetReadDeadline(time.Time) error  { return nil }
func (s *secure) SetWriteDeadline(time.Time) error { return nil }
