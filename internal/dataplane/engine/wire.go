package engine

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A wire is a TCP connection, in clear or with TLS upon it, that one goroutine reads and
// one (the same or another) writes. Waiting is done inside callbacks of net's poller, so that no buffer is needed
// before there is something to read.
//
// Deadlines are lazy: the kernel-near one is only ever moved nearer, and when it fires
// the wait looks whether it is really due. A connection that is busy touches no timer.
//
// The owner is the only one that calls close, and only when nobody else reads or writes,
// so that fd is always this connection. Others may interrupt.
type wire struct {
	tcp *net.TCPConn
	raw syscall.RawConn
	fd  uintptr

	tls *secure // nil: in clear

	in, out half
	both    func(fd uintptr) bool // turnStep
	stop                          // what interrupt was told
}

// A half is one direction of a wire.
type half struct {
	armed moment // the deadline that the poller has; 0 is none
	step  func(fd uintptr) bool
	buf   []byte
	n     int
	errno syscall.Errno
	woken bool // turn has sent its part
	stale bool // turn found the connection not fit for use
}

var (
	errStale = errors.New("kept connection has ended")
	errHalt  = errors.New("no longer wanted")
)

func (w *wire) open(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	w.tcp, w.raw = tcp, raw
	w.in.step, w.out.step, w.both = w.readStep, w.writeStep, w.turnStep
	return raw.Control(func(fd uintptr) { w.fd = fd })
}

func (w *wire) close() {
	if w.tls != nil {
		w.tls.part()
	}
	w.tcp.Close()
}

// closeWrite tells the other side that nothing more comes.
func (w *wire) closeWrite(l *limit) error {
	if w.tls != nil && !w.tls.torn {
		_ = w.tls.conn.CloseWrite() // what it has to say is sealed, if anything can be
		if err := w.tls.flush(l); err != nil {
			return err
		}
	}
	return w.tcp.CloseWrite()
}

// tear makes the close of w, which follows, one that the other side cannot take for a good
// end.
func (w *wire) tear() {
	if w.tls != nil {
		w.tls.torn = true
	}
	w.tcp.SetLinger(0)
}

// recv reads what there is into b, which is not empty.
func (w *wire) recv(fd uintptr, b []byte) (int, syscall.Errno) {
	if w.tls != nil {
		return w.tls.recv(b)
	}
	return readFD(fd, b)
}

// interrupt makes every wait on w return err, now and until it is resumed. Anyone may
// call it. The first err stays, unless it is one that its owner resumes from.
func (w *wire) interrupt(err error) {
	w.set(err)
	w.nudge()
}

// nudge makes a wait look again at what it waits for and how long.
func (w *wire) nudge() { w.tcp.SetDeadline(longAgo) }

var longAgo = time.Unix(1, 0)

// arm sees to it that a wait ends when it is due.
func (w *wire) arm(h *half, due moment, again bool) error {
	if due == 0 && again {
		due = now() + moment(time.Hour) // a fired deadline must be replaced
	}
	if due != 0 && (again || h.armed == 0 || h.armed > due) {
		h.armed = due
		var err error
		if h == &w.in {
			err = w.tcp.SetReadDeadline(due.time())
		} else {
			err = w.tcp.SetWriteDeadline(due.time())
		}
		if err != nil {
			return err
		}
	}
	return w.interrupted()
}

// await runs step, which tries something on the socket, each time when the direction
// may be ready, until step says true. progress returns how many bytes moved (for a
// limit that is looked at only when time is up), or is nil.
func (w *wire) await(h *half, step func(uintptr) bool, l *limit) error {
	begun := l.since
	if l.pace != nil {
		begun = now()
	}
	due := l.due(begun)
	again := false
	for {
		if err := w.arm(h, due, again); err != nil {
			return err
		}
		var err error
		if h == &w.in {
			err = w.raw.Read(step)
		} else {
			err = w.raw.Write(step)
		}
		if err == nil {
			if l.pace != nil && !l.pace.add(time.Duration(now()-begun), int64(h.n)) {
				return l.late
			}
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := w.interrupted(); err != nil {
			return err
		}
		if due, err = w.expired(h, l, &begun); err != nil {
			return err
		}
		again = true
	}
}

// expired judges a wait at its deadline, which may have been set for another wait. It
// returns the next one.
func (w *wire) expired(h *half, l *limit, begun *moment) (moment, error) {
	t := now()
	if l.until != 0 && t >= l.until {
		return 0, l.over
	}
	var taken int64
	if h == &w.out {
		// The socket says writable only when a good part of its buffer is free. A
		// slow but living receiver shows in what it has acknowledged.
		left := unacknowledged(w.fd)
		taken = max(int64(h.n)-left, 0)
		h.n = int(left)
		if taken > 0 {
			l.since = t
		}
	}
	if l.also != nil {
		l.since = max(l.since, l.also(t))
	}
	if l.each > 0 && t >= l.since+moment(l.each) {
		return 0, l.late
	}
	if l.pace != nil {
		if !l.pace.add(time.Duration(t-*begun), taken) {
			return 0, l.late
		}
		*begun = t
	}
	return l.due(t), nil
}

// read waits until there is something and reads it. At the end it returns io.EOF.
func (w *wire) read(b []byte, l *limit) (int, error) {
	w.in.buf = b
	err := w.await(&w.in, w.in.step, l)
	w.in.buf = nil
	return w.got(err)
}

func (w *wire) readStep(fd uintptr) bool {
	h := &w.in
	h.n, h.errno = w.recv(fd, h.buf)
	return h.errno != syscall.EAGAIN
}

// got returns what a read has come to.
func (w *wire) got(err error) (int, error) {
	h := &w.in
	switch {
	case err != nil:
		return 0, err
	case h.errno == syscall.EPROTO && w.tls != nil && w.tls.fault != nil:
		return 0, w.tls.fault
	case h.errno != 0:
		return 0, os.NewSyscallError("read", h.errno)
	case h.n == 0:
		return 0, io.EOF
	}
	return h.n, nil
}

// cutOff reports whether the end that a read came to may be another's doing: TLS has a
// farewell of its own, and there was none (RFC 9112, 9.8).
func (w *wire) cutOff() bool { return w.tls != nil && w.tls.cut }

// glance is read, but for its wait: it returns 0 and no error if there is nothing yet.
func (w *wire) glance(b []byte, l *limit) (int, error) {
	h := &w.in
	h.buf = b
	err := w.await(h, w.glanceStep, l)
	h.buf = nil
	if err == nil && h.errno == syscall.EAGAIN {
		return 0, nil
	}
	return w.got(err)
}

func (w *wire) glanceStep(fd uintptr) bool {
	h := &w.in
	h.n, h.errno = w.recv(fd, h.buf)
	return true
}

// poll reads what there is, without waiting: 0 and no error if there is nothing.
func (w *wire) poll(b []byte) (int, error) {
	n, e := w.recv(w.fd, b)
	switch {
	case e == syscall.EAGAIN:
		return 0, nil
	case e != 0:
		return 0, os.NewSyscallError("read", e)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// write writes all of b.
func (w *wire) write(b []byte, l *limit) error {
	if len(b) == 0 {
		return nil
	}
	if w.tls != nil {
		return w.tls.send(b, nil, l)
	}
	n, e := writeFD(w.fd, b)
	return w.rest(b, n, e, l)
}

// writeTwo writes all of a and b.
func (w *wire) writeTwo(a, b []byte, l *limit) error {
	if len(a) == 0 || len(b) == 0 {
		return w.write(append(a, b...), l)
	}
	if w.tls != nil {
		return w.tls.send(a, b, l)
	}
	n, e := writeBoth(w.fd, a, b)
	if n >= len(a) {
		return w.rest(b, n-len(a), e, l)
	}
	if err := w.rest(a, n, e, l); err != nil {
		return err
	}
	return w.write(b, l)
}

// rest writes what of b is left after n bytes, waiting for room.
func (w *wire) rest(b []byte, n int, e syscall.Errno, l *limit) error {
	for {
		if e != 0 && e != syscall.EAGAIN {
			return os.NewSyscallError("write", e)
		}
		b = b[n:]
		if len(b) == 0 {
			return nil
		}
		if n > 0 || l.since == 0 {
			l.since = now()
		}
		h := &w.out
		h.n = int(unacknowledged(w.fd))
		h.buf = b
		err := w.await(h, h.step, l)
		h.buf = nil
		if err != nil {
			return err
		}
		n, e = h.n, h.errno
	}
}

func (w *wire) writeStep(fd uintptr) bool {
	h := &w.out
	n, e := writeFD(fd, h.buf)
	if e == syscall.EAGAIN {
		return false
	}
	h.n, h.errno = n, e
	return true
}

// turn writes out and waits for the answer in one stay with the poller: the read that
// would find nothing is saved. The connection is looked at first; errStale says that it
// has ended, or that bytes came which nobody asked for, and that nothing was sent.
// sent is how much of out the socket took.
func (w *wire) turn(out, in []byte, l *limit) (n, sent int, err error) {
	if w.tls != nil {
		return w.turnSealed(out, in, l)
	}
	h := &w.in
	h.buf, h.woken, h.stale = in, false, false
	w.out.buf, w.out.n, w.out.errno = out, 0, 0
	err = w.await(h, w.both, l)
	h.buf, w.out.buf = nil, nil
	sent = w.out.n
	switch {
	case h.stale:
		return 0, 0, errStale
	case err == nil && w.out.errno != 0 && w.out.errno != syscall.EAGAIN:
		return 0, sent, os.NewSyscallError("write", w.out.errno)
	case err == nil && !h.woken:
		return 0, sent, nil // the socket did not take all: the caller goes on plainly
	}
	n, err = w.got(err)
	return n, sent, err
}

// turnSealed is turn with TLS: sent is all of out, as soon as a part of it is.
func (w *wire) turnSealed(out, in []byte, l *limit) (n, sent int, err error) {
	if n, err := w.poll(in); n > 0 || err != nil {
		return 0, 0, errStale
	}
	w.tls.moved = false
	err = w.tls.send(out, nil, l)
	if w.tls.moved {
		sent = len(out)
	}
	if err != nil {
		return 0, sent, err
	}
	l.since = now()
	n, err = w.read(in, l)
	return n, sent, err
}

func (w *wire) turnStep(fd uintptr) bool {
	h, o := &w.in, &w.out
	if h.woken {
		return w.readStep(fd)
	}
	if o.n > 0 { // after a deadline that was not due
		return true
	}
	if _, e := readFD(fd, h.buf); e != syscall.EAGAIN {
		h.stale = true
		return true
	}
	o.n, o.errno = writeFD(fd, o.buf)
	h.woken = o.errno == 0 && o.n == len(o.buf)
	return !h.woken
}
