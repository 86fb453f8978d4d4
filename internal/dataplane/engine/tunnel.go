package engine

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
)

// A tunnel carries bytes both ways, after an upgrade, until both sides have ended or
// neither has said anything for a while.
type tunnel struct {
	silence time.Duration
	last    atomic.Int64 // the moment of the last byte
}

var (
	errSilence = errors.New("neither side said anything")
	errTunnel  = errors.New("the other direction failed")
)

// tunnel implements client.
func (c *clientConn) tunnel(u *serverConn, silence time.Duration) error {
	d := c.desk
	c.heard.Store(math.MaxInt64) // half a close is no parting here
	alive := net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 20 * time.Second, Count: 3}
	c.tcp.SetKeepAliveConfig(alive)
	u.tcp.SetKeepAliveConfig(alive)
	// It may last for days: of the desk only the request is still needed.
	clear(d.x.Response.Header)
	d.x.Response.Header, d.x.Response.Reason = d.x.Response.Header[:0], nil
	d.out, d.rsp = nil, nil

	t := &tunnel{silence: silence}
	t.last.Store(int64(now()))
	type result struct {
		n   int64
		err error
	}
	up := make(chan result, 1)
	go func() { // ends when the client or the server has ended, or with the other direction
		n, err := t.carry(&u.wire, &c.wire)
		if err != nil {
			c.interrupt(errTunnel)
			u.interrupt(errTunnel)
		}
		up <- result{n, err}
	}()
	n, err := t.carry(&c.wire, &u.wire)
	if err != nil {
		c.interrupt(errTunnel)
		u.interrupt(errTunnel)
	}
	r := <-up
	d.x.Bytes.Out += n
	d.x.Bytes.In += r.n
	switch {
	case errors.Is(err, dataplane.ErrDrained) || errors.Is(r.err, dataplane.ErrDrained):
		return dataplane.ErrDrained
	case err == nil && r.err == nil, errors.Is(err, errSilence), errors.Is(r.err, errSilence):
		return nil
	}
	return tunnelFault(err, r.err)
}

// tunnelFault says which side broke a tunnel, from the errors of its two directions.
func tunnelFault(down, up error) error {
	first, client := down, false
	if first == nil || errors.Is(first, errTunnel) {
		first, client = up, true
	}
	var side *spliceError
	if errors.As(first, &side) && side.writing {
		client = !client
	}
	if client {
		return fmt.Errorf("%w: %w", dataplane.ErrClientGone, first)
	}
	return fmt.Errorf("%w: %w", dataplane.ErrRead, first)
}

// limit returns one for a wait of the tunnel that begins now.
func (t *tunnel) limit() limit {
	return limit{each: t.silence, late: errSilence, since: now(), also: func(moment) moment { return moment(t.last.Load()) }}
}

// note says that something was said, at the moment that it returns.
func (t *tunnel) note() moment {
	m := now()
	t.last.Store(int64(m))
	return m
}

// carry moves bytes from src to dst up to the end of src, and passes the end on. While
// there is nothing to carry it has no buffer. What comes in full buffers is spliced.
func (t *tunnel) carry(dst, src *wire) (moved int64, err error) {
	wait := t.limit()
	send := wait
	var b *[bufferBytes]byte
	defer func() {
		if b != nil {
			putBuffer(b)
		}
	}()
	read := func(fd uintptr) bool {
		if b == nil {
			b = getBuffer()
		}
		src.in.n, src.in.errno = src.recv(fd, b[:])
		if src.in.errno == syscall.EAGAIN {
			putBuffer(b)
			b = nil
			return false
		}
		return true
	}
	for {
		n, err := src.got(src.await(&src.in, read, &wait))
		if err == io.EOF {
			return moved, dst.closeWrite(&send)
		}
		if err != nil {
			return moved, &spliceError{err: err}
		}
		wait.since = t.note()
		send.since = wait.since
		if err := dst.write(b[:n], &send); err != nil {
			return moved, &spliceError{writing: true, err: err}
		}
		moved += int64(n)
	}
}
