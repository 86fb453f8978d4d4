package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

// mourner panics at the end of every exchange.
type mourner struct{ stage }

func (m *mourner) End(*dataplane.Exchange, error) { panic("in End") }

// A forced end is one for every connection, however many the handler panics over.
func TestAForcedEndOutlivesPanics(t *testing.T) {
	m := &mourner{stage{t: t, events: make(chan string, 100), ended: make(chan error, 1)}}
	m.listener = &dataplane.Listener{Name: "web", Limits: dataplane.Limits{HeaderBytes: 4096, URIBytes: 1024, Fields: 10}}
	m.route = dataplane.Route{Name: "all"}
	m.socket, m.server = waitable(t, listen(t)), listen(t)
	m.upstream.SetAddr(m.server.Addr().(*net.TCPAddr).AddrPort())
	m.engine = NewLoop(Config{Loops: 1, Now: func() time.Time { return someDay }})
	go m.engine.Serve(m.listener, m.socket, m)
	for range 3 {
		c, err := net.Dial("tcp", m.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		m.play("s+\n" + `s< "GET / HTTP/1.1\r\nHost: h\r\n\r\n"`)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- m.engine.Shutdown(ctx) }()
	select {
	case err := <-done:
		if !errors.Is(err, dataplane.ErrDrained) {
			t.Errorf("Shutdown = %v, want ErrDrained", err)
		}
	case <-time.After(patience):
		t.Fatal("Shutdown does not return")
	}
	if m.admit != m.leave {
		t.Errorf("%d connections admitted, %d left", m.admit, m.leave)
	}
}
