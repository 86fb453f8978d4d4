package engine

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"testing"

	qhttp3 "github.com/quic-go/quic-go/http3"
)

// While one process takes another's place each has the connections that it began with.
func TestTwoEndpointsAtOneAddress(t *testing.T) {
	s := newStage(t, func(c Config) Engine { return New(c) }, func(s *stage, _ *Config) { s.sealed = true })
	bind := func(at string) net.PacketConn {
		var fault error
		c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			if err := raw.Control(func(fd uintptr) { fault = MayShare(fd) }); err != nil {
				return err
			}
			return fault
		}}
		l, err := c.ListenPacket(context.Background(), "udp4", at)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	begin := func(socket net.PacketConn) *Endpoint {
		e, err := s.engine.(*Goroutine).Endpoint(socket, EndpointKeys{Mark: IDMark([2]byte{1, 2}, [3]byte{3, 4, 5})}, s.listener, s)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	ask := func(who string, c *qhttp3.Transport, at string) {
		t.Helper()
		h := &h3stage{stage: s, client: c, at: at}
		if r, _, err := h.do("GET", "/answer", nil); err != nil || r.StatusCode != 200 {
			t.Fatalf("%s: %v, %v", who, r, err)
		}
		h.want("end ok")
	}
	client := func() *qhttp3.Transport {
		c := &qhttp3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		t.Cleanup(func() { c.Close() })
		return c
	}
	socket := bind("127.0.0.1:0")
	at := socket.LocalAddr().String()
	first := begin(socket)
	old := client()
	ask("before", old, at)
	second := begin(bind(at))
	for range 8 {
		ask("a client before the change", client(), at)
	}
	if n := len(second.conns); n != 0 {
		t.Fatalf("the newer socket has %d connections before it took over", n)
	}
	if err := second.TakeOver(); err != nil {
		t.Fatal(err)
	}
	had := len(first.conns)
	for range 8 {
		ask("a client after the change", client(), at)
		ask("the oldest client", old, at)
	}
	second.mu.Lock()
	n := len(second.conns)
	second.mu.Unlock()
	if n != 8 || len(first.conns) > had {
		t.Errorf("the newer socket has %d connections, want 8; the older %d, had %d", n, len(first.conns), had)
	}
	first.Close()
	ask("a client when the older is closing", client(), at)
}
