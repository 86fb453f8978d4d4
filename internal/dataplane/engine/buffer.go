package engine

import (
	"sync"
	"time"

	"proxyd/internal/dataplane"
)

// A desk is what one exchange needs while it lasts: the exchange itself and its buffers.
// An idle connection has none.
type desk struct {
	x   dataplane.Exchange
	in  []byte // the request's head, and what came behind it
	out []byte // what is put together to be sent, either way
	rsp []byte // what the server said

	head, got int           // of rsp: the final head, and all that was read with it
	body      requestBody   // of the request
	pace      pace          // of what is being sent to the client
	resumed   chan struct{} // Resume was called
	resume    func()
	fd        uintptr // of the client
	lag       func() time.Duration
}

const (
	bufferBytes     = 16 << 10
	maxResponseHead = 64 << 10
	maxFieldsServer = 256
	spliceFrom      = 16 << 10 // a body with as much to come is moved by the kernel
)

// desks is a cache without a meaning of its own.
var desks = sync.Pool{New: func() any {
	d := &desk{
		in:      make([]byte, bufferBytes),
		out:     make([]byte, 0, bufferBytes),
		rsp:     make([]byte, bufferBytes),
		resumed: make(chan struct{}, 1),
	}
	d.resume = func() {
		select {
		case d.resumed <- struct{}{}:
		default:
		}
	}
	d.lag = func() time.Duration { return unread(d.fd) }
	return d
}}

// putDesk gives d back. Buffers that grew beyond the usual are left to the collector.
func putDesk(d *desk) {
	if len(d.in) != bufferBytes {
		d.in = make([]byte, bufferBytes)
	}
	if d.out == nil || cap(d.out) > 4*bufferBytes {
		d.out = make([]byte, 0, bufferBytes)
	}
	if len(d.rsp) != bufferBytes {
		d.rsp = make([]byte, bufferBytes)
	}
	desks.Put(d)
}

// buffers are for bodies and tunnels.
var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

func getBuffer() *[bufferBytes]byte { return buffers.Get().(*[bufferBytes]byte) }

func putBuffer(b *[bufferBytes]byte) { buffers.Put(b) }
