package engine

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"

	"proxyd/internal/dataplane"
)

// A testFront is the proxies before the listener of a stage, which all peers are or none is.
type testFront struct {
	stage  *stage
	trusts bool
}

func (f *testFront) Await(*dataplane.Listener, netip.AddrPort) bool { return f.trusts }

func (f *testFront) Heard(_ *dataplane.Listener, peer, client netip.AddrPort, err error) bool {
	said := "heard " + client.String()
	switch {
	case err != nil:
		said = "heard " + word(err)
	case client == peer:
		said = "heard itself"
	}
	if word(err) != "drained" && said != "heard idle while draining" {
		f.stage.events <- said
	}
	return err == nil
}

// setFront puts proxies before the stage's listener. Its dialogue begins in clear.
func (s *stage) setFront(trusts bool) {
	s.listener.Front, s.sealed = &testFront{stage: s, trusts: trusts}, false
}

// The header goes before the handshake, which finds all that is behind it.
func TestFrontBeforeTLS(t *testing.T) {
	for name, newEngine := range map[string]func(Config) Engine{
		"goroutine": func(c Config) Engine { return New(c) },
		"loop":      func(c Config) Engine { return NewLoop(c) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, newEngine, func(s *stage, _ *Config) {
				s.setFront(true)
				s.sealed, s.waited = true, true
			})
			raw, err := net.Dial("tcp", s.socket.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			s.client, s.tcp = tls.Client(raw, &tls.Config{InsecureSkipVerify: true}), raw.(*net.TCPConn)
			if _, err := raw.Write([]byte("PROXY TCP4 198.51.100.9 203.0.113.10 51413 443\r\n")); err != nil {
				t.Fatal(err)
			}
			s.play(`
				c> "GET /who HTTP/1.1\r\nHost: a\r\n\r\n"
				h "heard 198.51.100.9:51413"
				c< "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: 19\r\n\r\n198.51.100.9:51413\n"
				h "end ok"
			`)
		})
	}
}
