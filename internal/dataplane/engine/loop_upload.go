package engine

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"proxyd/internal/dataplane"
)

// An upload is the rest of a request's body on its way from the client to the server,
// while the server may already be answering.
type upload struct {
	on      bool        // some is to come, and wanted
	backlog             // what the server has not taken
	pipe    *pipe       // nil while nothing is spliced
	piped   int         // bytes in it
	pace    pace        // of the client
	asked   moment      // since when the client is waited for; 0 if it is not
	unacked int64       // bytes on their way to the server, when it last took some
	excuse  func() bool // of pace: the client waits for 100 (Continue)
}

// stuck reports whether the server has not taken all.
func (p *upload) stuck() bool { return p.pending() || p.piped > 0 }

// halt drops what the server has not taken.
func (p *upload) halt() {
	p.on = false
	p.clear()
	p.pipe, p.piped = givePipe(p.pipe, p.piped), 0
}

// givePipe gives a pipe back, or closes it if there is something in it.
func givePipe(p *pipe, left int) *pipe {
	switch {
	case p == nil:
	case left > 0:
		p.close()
	default:
		pipes.Put(p)
	}
	return nil
}

// startUpload begins to send what of the body is not at hand.
func (l *loop) startUpload(c *loopClient) {
	t := c.tray
	p := &t.up
	if p.excuse == nil {
		p.excuse = t.body.awaited.Load
	}
	lim := &c.door.listener.Limits
	p.on, p.asked = true, 0
	p.pace = pace{rate: lim.MinRate, window: lim.RateWindow, excuse: p.excuse}
}

// uploadDue returns when the upload is to be looked at: the server or the client has not
// moved for as long as it may. 0 is never, while neither is waited for.
func (l *loop) uploadDue(t *tray) moment {
	if t.up.stuck() {
		return l.after(t.since, t.x.Route.Timeout.Send)
	}
	if t.up.asked == 0 {
		return 0
	}
	return t.up.pace.due(t.up.asked)
}

// upload moves what there is of the body.
func (l *loop) upload(c *loopClient) {
	t := c.tray
	p := &t.up
	for moved := 0; p.on && !p.stuck(); {
		if !c.ready {
			if p.asked == 0 {
				p.asked = now()
			}
			break
		}
		if moved >= roundBytes {
			l.later(&c.loopWire)
			return
		}
		n, err := l.uploadPart(c)
		if err != nil {
			l.fail(c, err)
			return
		}
		moved += n
	}
	l.mind(c)
}

// uploadPart reads once and writes what was read.
func (l *loop) uploadPart(c *loopClient) (n int, err error) {
	t := c.tray
	b := &t.body
	if b.size >= 0 && b.rest >= spliceFrom && c.tls == nil {
		if n, err := l.spliceUp(c); err != errNoPipe {
			return n, err
		}
	}
	part := t.room(l.in)
	if b.size >= 0 {
		part = part[:min(b.rest, int64(len(part)))]
	}
	n, full, e := l.hearClient(c, part)
	if err := l.fromClient(c, n, full, e); n == 0 || err != nil {
		return 0, err
	}
	if b.size >= 0 {
		t.took(part[:n])
		b.rest -= int64(n)
		l.toServer(c, part[:n], b.rest == 0)
		return n, nil
	}
	// In chunks of our own, so that no extension, trailer or peculiar spelling of the
	// client gets to a server.
	r, err := appendChunks(l.out[:0], part[:n], &b.chunks, b.trailers)
	l.out = r.out[:0]
	if err != nil {
		return n, fmt.Errorf("%w: %w", dataplane.ErrClientBody, err)
	}
	if b.data += int64(r.data); b.most > 0 && b.data > b.most {
		return n, dataplane.ErrTooLarge
	}
	t.took(part[:r.used])
	if r.done {
		b.behind = part[r.used:n]
		if !b.atHand {
			b.behind = append([]byte(nil), b.behind...) // part is scratch
		}
	}
	l.toServer(c, r.out, r.done)
	return n, nil
}

// fromClient notes what a read of the client's body came to: n bytes, and perhaps more.
func (l *loop) fromClient(c *loopClient, n int, more bool, e syscall.Errno) error {
	p := &c.tray.up
	switch {
	case e == eagain:
		c.ready = false
		return nil
	case e != 0:
		return fmt.Errorf("%w: %w", dataplane.ErrClientGone, os.NewSyscallError("read", e))
	case n == 0:
		return fmt.Errorf("%w: %w", dataplane.ErrClientGone, io.ErrUnexpectedEOF)
	}
	c.ready = c.ended || more
	if at := p.asked; at != 0 {
		p.asked = 0
		if !p.pace.add(spanOf(now()-at), int64(n)) {
			return dataplane.ErrClientSlow
		}
	}
	c.tray.body.awaited.Store(false)
	return nil
}

// room returns where to read to: behind the part at hand while there is room, so that
// the request can be sent again, else scratch.
func (t *tray) room(scratch []byte) []byte {
	b := &t.body
	if b.atHand {
		at := t.head + len(b.first)
		if at < bufferBytes {
			if len(t.in) < bufferBytes {
				// What the exchange refers to stays where it is.
				in := make([]byte, bufferBytes, largeIn)
				copy(in, t.in[:at])
				t.in = in
			}
			return t.in[at:bufferBytes]
		}
		b.atHand = false
	}
	return scratch
}

// took notes what was read into room.
func (t *tray) took(part []byte) {
	b := &t.body
	b.taken += int64(len(part))
	if b.atHand {
		b.first = t.in[t.head : t.head+len(b.first)+len(part)]
	}
}

// giveUp ends the upload to a server that takes nothing any more. It may have answered:
// that is for its answer to tell.
func (t *tray) giveUp() {
	t.up.halt()
	t.body.unsent = true
}

// toServer writes a part of the body; last says that it is the last. It may be empty: of
// chunks, a part can be nothing but framing.
func (l *loop) toServer(c *loopClient, part []byte, last bool) {
	if len(part) == 0 {
		return
	}
	t := c.tray
	p := &t.up
	t.since = now()
	t.body.whole = last
	p.on = !last
	n, e := writeFD(uintptr(t.server.fd), part)
	switch {
	case e != 0 && e != eagain:
		t.giveUp()
		return
	case n < len(part):
		p.add(part[n:])
		p.unacked = unacknowledged(uintptr(t.server.fd))
		p.on = true
	}
	t.uploaded()
}

// uploaded begins the time of the attempt anew when the body has been sent.
func (t *tray) uploaded() {
	if t.tried != 0 && !t.up.on {
		t.tried = t.since
	}
}

// spliceUp moves a part of the body within the kernel.
func (l *loop) spliceUp(c *loopClient) (n int, err error) {
	t := c.tray
	p := &t.up
	b := &t.body
	if p.pipe == nil {
		if p.pipe, _ = pipes.Get().(*pipe); p.pipe == nil {
			return 0, errNoPipe
		}
	}
	b.atHand = false
	size := int(min(b.rest, pipeBytes))
	n, e := spliceFD(int(c.fd), p.pipe.w, size)
	if err := l.fromClient(c, n, true, e); n == 0 || err != nil {
		return 0, err
	}
	p.piped = n
	b.taken += int64(n)
	b.rest -= int64(n)
	t.since = now()
	l.uploadPiped(c)
	return n, nil
}

// uploadPiped writes what the server takes of what is in the pipe.
func (l *loop) uploadPiped(c *loopClient) (n int) {
	t := c.tray
	p := &t.up
	for p.piped > 0 {
		m, e := spliceFD(p.pipe.r, int(t.server.fd), p.piped)
		if e == eagain {
			p.unacked = unacknowledged(uintptr(t.server.fd))
			return n
		}
		if e != 0 {
			t.body.whole = t.body.rest == 0
			t.giveUp()
			return n
		}
		p.piped -= m
		n += m
	}
	t.body.whole = t.body.rest == 0
	p.on = !t.body.whole
	t.uploaded()
	return n
}

// uploadRest goes on when the server can take more.
func (l *loop) uploadRest(c *loopClient) {
	t := c.tray
	p := &t.up
	n, e := p.send(t.server.fd)
	if e != 0 {
		t.giveUp()
	} else if p.piped > 0 {
		n += l.uploadPiped(c)
	}
	if n > 0 {
		t.since = now()
		p.unacked = unacknowledged(uintptr(t.server.fd))
	}
	if p.on && !p.stuck() {
		p.on = !t.body.whole
	}
	t.uploaded()
	l.upload(c)
}

// uploadSlow judges an upload that has not moved. The error ends the exchange.
func (l *loop) uploadSlow(c *loopClient, at moment) error {
	t := c.tray
	p := &t.up
	if p.stuck() {
		left := unacknowledged(uintptr(t.server.fd))
		if left < p.unacked { // it takes, if slowly
			t.since = at
		}
		p.unacked = left
		if due := l.uploadDue(t); due != 0 && at >= due {
			return dataplane.ErrSendTime
		}
		return nil
	}
	if p.asked != 0 {
		if !p.pace.add(spanOf(at-p.asked), 0) {
			return dataplane.ErrClientSlow
		}
		p.asked = at
	}
	return nil
}
