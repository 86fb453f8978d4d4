package engine

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"testing"

	qhttp3 "github.com/quic-go/quic-go/http3"
)

// While processes take each other's place, each has the connections that it began with.
func TestEndpointsAtOneAddressPartConnections(t *testing.T) {
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
	steer := func(e *Endpoint, number int, others ...Steered) {
		t.Helper()
		if err := e.Steer(number, others); err != nil {
			t.Fatal(err)
		}
	}
	count := func(e *Endpoint) int {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.conns)
	}
	want := func(when string, ends ...int) func(...*Endpoint) {
		return func(all ...*Endpoint) {
			t.Helper()
			for i, e := range all {
				if n := count(e); n != ends[i] {
					t.Errorf("%s endpoint %d has %d connections, want %d", when, i, n, ends[i])
				}
			}
		}
	}

	socket := bind("127.0.0.1:0")
	at := socket.LocalAddr().String()
	first := begin(socket)
	steer(first, 0)
	oldest := client()
	ask("the oldest client", oldest, at)

	second := begin(bind(at))
	for range 8 {
		ask("a client before the first change", client(), at)
	}
	want("before the first change", 9, 0)(first, second)
	steer(second, 1, Steered{first.Tag(), 0})
	older := client()
	ask("a client after the first change", older, at)
	for range 7 {
		ask("a client after the first change", client(), at)
	}
	ask("the oldest client after the first change", oldest, at)
	want("after the first change", 9, 8)(first, second)

	third := begin(bind(at))
	steer(third, 2, Steered{first.Tag(), 0}, Steered{second.Tag(), 1})
	for range 8 {
		ask("a client after the second change", client(), at)
		ask("the oldest client after the second change", oldest, at)
		ask("an older client after the second change", older, at)
	}
	want("after the second change", 9, 8, 8)(first, second, third)

	// The first goes. Whoever holds a copy of its socket keeps the others their numbers, and
	// may use it again.
	f, err := first.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	first.each(func(h *h3conn) { h.cut(nil) })
	first.Close()
	<-first.Over()
	for range 4 {
		ask("an older client when the first has ended", older, at)
		ask("a client when the first has ended", client(), at)
	}
	want("when the first has ended", 8, 12)(second, third)
	again, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	fourth := begin(again)
	steer(fourth, 0, Steered{second.Tag(), 1}, Steered{third.Tag(), 2})
	for range 4 {
		ask("an older client after the third change", older, at)
		ask("a client after the third change", client(), at)
	}
	want("after the third change", 8, 12, 4)(second, third, fourth)
}
