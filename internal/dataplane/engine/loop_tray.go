package engine

import (
	"syscall"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

const eagain = syscall.EAGAIN

// A tray is what one exchange needs while it lasts in a loop, as a desk is in the
// goroutine engine. Its buffers are as large as what is in them.
type tray struct {
	x       dataplane.Exchange
	in      []byte // the request's head, and what came behind it
	have    int    // bytes in it
	head    int    // of them the request's head
	partial bool   // the head is not complete
	read    bool   // the head was read when it came
	scan    http1.Scanner
	body    requestBody

	server  *loopServer
	wait    question // that the handler said Wait to
	err     error    // that Retry is asked about
	fresh   bool     // no kept connection is to be used
	interim int      // interim answers so far
	total   moment   // the end of it all; 0 is never
	since   moment   // when the server was last heard of, or took something
	tried   moment   // when this attempt began, or had all of the request's body; 0 where nothing bounds one

	rsp   []byte // what the server said, if it must be kept; else it is in the loop's scratch
	got   int    // bytes of it
	reply loopReply

	up      upload
	down    backlog // for the client
	pace    pace    // of the client that does not take it
	blocked moment  // since when it does not
	unacked int64   // bytes then on their way to it
	pipe    *pipe   // nil while nothing is spliced
	piped   int     // bytes in it

	client *loopClient // whose exchange it is
	resume func()      // of x
	ticket *ticket     // of resume
	waited bool        // so resume may be called late
	lag    func() time.Duration
}

// A question is one of the handler's methods.
type question uint8

const (
	askBegin question = iota
	askRespond
	askRetry
)

// owed reports whether the client has not taken all that it was sent.
func (t *tray) owed() bool { return t.down.pending() || t.piped > 0 }

// A backlog is bytes that a socket has not taken.
type backlog struct {
	b    []byte
	from int
}

func (p *backlog) pending() bool { return p.from < len(p.b) }

// add takes a copy.
func (p *backlog) add(b []byte) { p.b = append(p.b, b...) }

// send writes what the socket takes.
func (p *backlog) send(fd int32) (n int, e syscall.Errno) {
	for p.pending() {
		m, e := writeFD(uintptr(fd), p.b[p.from:])
		if e == eagain {
			return n, 0
		}
		if e != 0 {
			return n, e
		}
		p.from += m
		n += m
	}
	p.clear()
	return n, 0
}

// took notes that n bytes were written.
func (p *backlog) took(n int) {
	if p.from += n; !p.pending() {
		p.clear()
	}
}

func (p *backlog) clear() {
	if cap(p.b) > 2*bufferBytes {
		p.b = nil
	}
	p.b, p.from = p.b[:0], 0
}

// Sizes of a tray's in. They are no powers of two, so that trays do not all lie on the
// same lines of the processor's cache.
const (
	smallIn = 2304
	largeIn = bufferBytes + 2048 // of which bufferBytes are used
)

// newTray returns a tray with room for n bytes.
func (l *loop) newTray(n int) *tray {
	var t *tray
	if last := len(l.trays) - 1; last >= 0 {
		t = l.trays[last]
		l.trays[last] = nil
		l.trays = l.trays[:last]
	} else {
		t = &tray{in: make([]byte, smallIn)}
	}
	if n > len(t.in) {
		t.in = make([]byte, bufferBytes, largeIn)
	}
	return t
}

// putTray gives t back, with its exchange reset. A large buffer is left to the collector.
func (l *loop) putTray(t *tray) {
	t.have, t.head, t.partial = 0, 0, false
	t.clear(l)
	if len(t.in) > bufferBytes {
		t.in = make([]byte, smallIn)
	}
	if len(l.trays) < maxSpare {
		l.trays = append(l.trays, t)
	}
}

// maxSpare is how many trays, or buffers, of a busier time a loop holds on to.
const maxSpare = 512

// clear makes t ready for the next exchange of its connection.
func (t *tray) clear(l *loop) {
	t.client, t.server, t.err, t.fresh, t.interim = nil, nil, nil, false, 0
	t.body.release()
	if t.rsp != nil {
		if len(t.rsp) == bufferBytes && len(l.spare) < maxSpare {
			l.spare = append(l.spare, t.rsp)
		}
		t.rsp = nil
	}
	t.got = 0
	t.up.halt()
	t.down.clear()
	t.pipe, t.piped = givePipe(t.pipe, t.piped), 0
	if t.waited {
		t.ticket.void = true
		t.ticket, t.resume, t.waited = nil, nil, false
	}
}

// grow makes room in t.in if it is full. The parser refuses what is longer than most.
func (t *tray) grow(most int) {
	if t.have < len(t.in) {
		return
	}
	b := make([]byte, bufferBytes, largeIn)
	if t.have >= bufferBytes {
		b = make([]byte, t.have+max(most-t.have, bufferBytes))
	}
	copy(b, t.in)
	t.in = b
}

// keepReply keeps what the server said in the loop's scratch, n bytes, by exchanging the
// buffers.
func (l *loop) keepReply(t *tray, n int) {
	if t.rsp != nil {
		return
	}
	t.rsp, t.got = l.rsp, n
	if last := len(l.spare) - 1; last >= 0 {
		l.rsp = l.spare[last]
		l.spare[last] = nil
		l.spare = l.spare[:last]
	} else {
		l.rsp = make([]byte, bufferBytes)
	}
}
