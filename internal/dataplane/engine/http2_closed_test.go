package engine

import (
	"io"
	"net"
	"sync"
	"testing"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/http2"
)

// A connection that has ended has no descriptor of its own any more: the GOAWAY that was still
// to come, from the timer of leave, would go to whoever has got it since.
func TestHTTP2WritesNothingToAnEndedConnection(t *testing.T) {
	c := &clientConn{}
	c.tcp = new(net.TCPConn)
	c.engine = &Goroutine{}
	c.listener = &dataplane.Listener{}
	h := &h2conn{c: c}
	h.ended = sync.NewCond(&h.mu)
	h.state = http2.New(http2.Config{Streams: 1, Window: 1 << 16, ConnWindow: 1 << 16, Unsent: 1 << 16, Limits: http1.Limits{HeaderBytes: 1 << 10, Fields: 10}}, h, 0)
	h.state.Take(nil) // the greeting
	if why := h.end(io.EOF); why != dataplane.ClosedClient {
		t.Fatal(why)
	}
	h.leaveNow()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state.Unsent() == 0 || h.writing {
		t.Errorf("%d bytes are unsent, somebody writes: %v", h.state.Unsent(), h.writing)
	}
}
