package engine

import (
	"fmt"
	"syscall"

	"proxyd/internal/dataplane"
)

// tell writes a and b to the client and counts. What the socket does not take is kept;
// flushed is called with the error in any case.
func (l *loop) tell(c *loopClient, a, b []byte) error { return l.say(c, a, b, false) }

// say is tell. last says that nothing follows: then the farewell of TLS goes out with it if
// the connection is to end.
func (l *loop) say(c *loopClient, a, b []byte, last bool) error {
	t := c.tray
	t.x.Bytes.Out += int64(len(a) + len(b))
	if c.tls != nil {
		sealed, err := c.tls.seal(a, b, last && !c.keep)
		if err != nil {
			return fmt.Errorf("%w: %w", dataplane.ErrClientGone, err)
		}
		defer giveSealed(sealed)
		a, b = sealed, nil
	}
	if t.down.pending() {
		t.down.add(a)
		t.down.add(b)
		return nil
	}
	if 0 < len(b) && len(b) <= copyBelow {
		a = append(a, b...)
		b = nil
	}
	var n int
	var e syscall.Errno
	switch {
	case len(a) == 0 && len(b) == 0:
		return nil
	case len(b) == 0:
		n, e = writeFD(uintptr(c.fd), a)
	case len(a) == 0:
		n, e = writeFD(uintptr(c.fd), b)
	default:
		n, e = writeBoth(uintptr(c.fd), a, b)
	}
	if e != 0 && e != eagain {
		return goneBy(e)
	}
	if n < len(a) {
		t.down.add(a[n:])
		n = len(a)
	}
	if n -= len(a); n < len(b) {
		t.down.add(b[n:])
	}
	if t.down.pending() {
		l.block(c)
	}
	return nil
}

// tellAll is tell for the last that the client is told. In a batch it waits for the others.
func (l *loop) tellAll(c *loopClient, a, b []byte) error {
	t := c.tray
	if !l.batch.on || t.down.pending() || len(a)+len(b) > joinBelow {
		return l.say(c, a, b, true)
	}
	t.x.Bytes.Out += int64(len(a) + len(b))
	if c.tls != nil {
		sealed, err := c.tls.seal(a, b, !c.keep)
		if err != nil {
			return fmt.Errorf("%w: %w", dataplane.ErrClientGone, err)
		}
		t.down.add(sealed)
		giveSealed(sealed)
	} else {
		t.down.add(a)
		t.down.add(b)
	}
	if t.got > 0 {
		l.keepReply(t, t.got) // the answer's fields lie in it, until End
	}
	l.join(&c.loopWire)
	return nil
}

// goneBy is the error of a client to which nothing can be written.
func goneBy(e syscall.Errno) error { return fmt.Errorf("%w: write: %w", dataplane.ErrClientGone, e) }

// block begins the wait for a client that does not take what it is sent.
func (l *loop) block(c *loopClient) {
	t := c.tray
	lim := &c.door.listener.Limits
	t.pace = pace{rate: lim.MinRate, window: lim.RateWindow}
	if t.got > 0 {
		l.keepReply(t, t.got) // the answer's fields lie in it, until End
	}
	l.waitRoom(c, now())
}

// waitRoom waits for room in the client's socket, or for the end of a window of its pace.
func (l *loop) waitRoom(c *loopClient, at moment) {
	t := c.tray
	t.blocked, t.unacked = at, unacknowledged(uintptr(c.fd))
	l.mind(c)
}

// flushClient goes on writing what was left.
func (l *loop) flushClient(c *loopClient) {
	t := c.tray
	n, e := t.down.send(c.fd)
	if e == 0 && !t.down.pending() && t.piped > 0 {
		var m int
		m, e = l.drainPipe(c)
		n += m
	}
	if e != 0 {
		l.flushed(c, goneBy(e))
		return
	}
	if at := now(); t.owed() {
		if !t.pace.add(spanOf(at-t.blocked), int64(n)) {
			l.flushed(c, dataplane.ErrClientSlow)
			return
		}
		l.waitRoom(c, at)
		return
	}
	l.flushed(c, nil)
}

// clientSlow judges a client that has not made room for a while. The socket says that it
// has room only when there is much of it: a slow but living client shows in what it has
// acknowledged.
func (l *loop) clientSlow(c *loopClient, at moment) {
	t := c.tray
	if due := t.pace.due(t.blocked); due != 0 && at >= due {
		left := unacknowledged(uintptr(c.fd))
		if !t.pace.add(spanOf(at-t.blocked), max(t.unacked-left, 0)) {
			l.flushed(c, dataplane.ErrClientSlow)
			return
		}
		t.blocked, t.unacked = at, left
	}
	l.mind(c)
}

// flushed goes on with what the client was being told, once it has been told or cannot be.
func (l *loop) flushed(c *loopClient, err error) {
	t := c.tray
	if err == nil && t.owed() {
		if l.cutOff {
			err = dataplane.ErrDrained
		} else {
			return // and is called again
		}
	}
	switch c.phase {
	case phaseRefuse:
		if err != nil {
			l.closeClient(c)
		} else {
			l.linger(c)
		}
	case phaseAnswer:
		if err != nil {
			c.keep = false
		} else if c.keep && !t.body.whole {
			l.startDrain(c)
			return
		}
		l.finish(c, err)
	case phaseRelay:
		switch {
		case err != nil:
			l.breakOff(c, err)
		case t.reply.done:
			l.finish(c, nil)
		default:
			l.resumeRelay(c)
		}
	default: // an interim answer
		if err != nil {
			l.fail(c, err)
		} else if l.mind(c); t.server.ready {
			l.hearServer(c)
		}
	}
}
