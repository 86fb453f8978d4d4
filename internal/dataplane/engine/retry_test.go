package engine

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// A stillborn socket sends the first datagrams of a handshake and hears nothing of what comes
// back: to the server it is a source that was forged.
type stillborn struct {
	net.PacketConn
	left atomic.Int64
}

func (s *stillborn) WriteTo(b []byte, to net.Addr) (int, error) {
	if s.left.Add(-1) < 0 {
		return len(b), nil
	}
	return s.PacketConn.WriteTo(b, to)
}

func (s *stillborn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if _, _, err := s.PacketConn.ReadFrom(b); err != nil {
			return 0, nil, err
		}
	}
}

// A witness counts the Retry packets that come.
type witness struct {
	net.PacketConn
	retries atomic.Int64
}

func (w *witness) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := w.PacketConn.ReadFrom(b)
	if n > 0 && b[0]&0xf0 == 0xf0 { // RFC 9000, 17.2.5
		w.retries.Add(1)
	}
	return n, from, err
}

// D8: when many handshakes hang, a client must show that its address is its own before anything is
// kept of it: what is kept does not grow with what comes, and clients that are there are served.
func TestD8RetryWhenManyHandshakesHang(t *testing.T) {
	h := newH3Stage(t, func(s *stage, _ *Config) { s.listener.Limits.HandshakeTime = 2 * patience })
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}
	to, err := net.ResolveUDPAddr("udp4", h.at)
	if err != nil {
		t.Fatal(err)
	}
	socket := func() net.PacketConn {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var hanging sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer hanging.Wait()
	defer cancel()
	hang := func() {
		c := &stillborn{PacketConn: socket()}
		c.left.Store(1)
		tr := &quic.Transport{Conn: c}
		hanging.Go(func() { // ends with cancel
			defer tr.Close()
			if _, err := tr.Dial(ctx, to, conf, nil); err == nil {
				t.Error("a client that hears nothing has a connection")
			}
		})
	}
	// call connects as an honest client does, and returns how often it was asked to show its address.
	call := func() int64 {
		t.Helper()
		w := &witness{PacketConn: socket()}
		tr := &quic.Transport{Conn: w}
		defer tr.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, err := tr.Dial(ctx, to, conf, nil)
		if err != nil {
			t.Fatalf("with %d handshakes that hang: %v", h.endpoint.opening.Load(), err)
		}
		conn.CloseWithError(0x100, "")
		return w.retries.Load()
	}
	if n := call(); n != 0 {
		t.Errorf("%d Retry packets when nothing hangs", n)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d handshakes hang", what, h.endpoint.opening.Load())
			}
		}
	}
	until("after an honest client", func() bool { return h.endpoint.opening.Load() == 0 })
	for range 3 * retryFrom {
		hang()
	}
	until("the limit is reached", func() bool { return h.endpoint.opening.Load() == retryFrom })
	for range 5 {
		if n := call(); n == 0 { // a hello that fills two datagrams has two
			t.Error("no Retry under load")
		}
	}
	until("honest clients have come and gone", func() bool { return h.endpoint.opening.Load() <= retryFrom })
}
