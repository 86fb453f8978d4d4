package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

// A testTLS shakes hands with one certificate and tells how each handshake went.
type testTLS struct {
	conf *tls.Config // nil: there is no room
	met  chan error
}

func newTestTLS(t testing.TB) *testTLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "h"}, DNSNames: []string{"h"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &testTLS{
		conf: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"http/1.1"}},
		met:  make(chan error, 100),
	}
}

// bothEngines are the two ways to have a handshake.
var bothEngines = map[string]func(Config) Engine{
	"goroutine": func(c Config) Engine { return New(c) },
	"loop":      func(c Config) Engine { c.Loops = 1; return NewLoop(c) },
}

func (s *testTLS) Greet(*dataplane.Listener, netip.AddrPort) *tls.Config { return s.conf }

func (s *testTLS) Met(_ *dataplane.Listener, _ netip.AddrPort, state *tls.ConnectionState, _ time.Duration, err error) {
	if (state == nil) != (err != nil) {
		err = errors.New("a state or an error, not both")
	}
	select {
	case s.met <- err:
	default: // nobody asks
	}
}

// Whatever is said in clear is said the same way through TLS.
func TestDialoguesTLS(t *testing.T) {
	dialogues(t, func(c Config) Engine { return New(c) }, func(s *stage, _ *Config) { s.sealed = true })
}

func TestDialoguesTLSAtLoops(t *testing.T) {
	dialogues(t, func(c Config) Engine { return NewLoop(c) }, func(s *stage, _ *Config) { s.sealed, s.waited = true, true })
}

// What secure relies on: a temporary error in the midst of a record loses nothing. The
// documentation of crypto/tls does not promise it.
func TestATemporaryErrorIsNotTheEnd(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conf := newTestTLS(t).conf.Clone()
		conf.MinVersion, conf.MaxVersion = version, version
		near, far := net.Pipe()
		under := &drip{Conn: near}
		server := tls.Server(under, conf)
		client := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
		said := bytes.Repeat([]byte("0123456789"), 1000)
		go func() {
			if client.Handshake() == nil {
				go io.Copy(io.Discard, client)
				client.Write(said)
				client.CloseWrite()
			}
		}()
		if err := server.Handshake(); err != nil {
			t.Fatal(err)
		}
		under.drips = true
		var heard []byte
		buf := make([]byte, 1000)
		pauses := 0
		for {
			n, err := server.Read(buf)
			heard = append(heard, buf[:n]...)
			if errors.Is(err, errNotYet) {
				pauses++
				continue
			}
			if err != nil {
				break
			}
		}
		if !bytes.Equal(heard, said) || pauses < 100 {
			t.Errorf("%s: %d bytes in spite of %d pauses, want %d", tls.VersionName(version), len(heard), pauses, len(said))
		}
		near.Close()
	}
}

// A drip gives a few bytes at every second Read, and has nothing at the others.
type drip struct {
	net.Conn
	drips bool
	odd   bool
}

func (d *drip) Read(b []byte) (int, error) {
	if !d.drips {
		return d.Conn.Read(b)
	}
	if d.odd = !d.odd; d.odd {
		return 0, errNotYet
	}
	return d.Conn.Read(b[:min(len(b), 11)])
}

// A handshake that fails says why, and is told of once.
func TestHandshakesThatFail(t *testing.T) {
	for name, newEngine := range bothEngines {
		t.Run(name, func(t *testing.T) { handshakesThatFail(t, newEngine) })
	}
}

func handshakesThatFail(t *testing.T, newEngine func(Config) Engine) {
	for _, c := range []struct {
		name  string
		sends string // before anything else
		eof   bool   // then half the connection is closed
		full  bool   // the handler has no room
		want  string // what comes back, from its beginning
		why   dataplane.Closing
	}{
		{name: "a client that says nothing", why: dataplane.ClosedTime},
		{name: "a client that goes", eof: true, why: dataplane.ClosedClient},
		{name: "half a hello", sends: "\x16\x03\x01\x02\x00\x01", eof: true, why: dataplane.ClosedClient},
		{name: "a hello that never ends", sends: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", why: dataplane.ClosedTime},
		{name: "HTTP in clear", sends: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: "HTTP/1.1 400 Bad Request\r\n", why: dataplane.ClosedError},
		{name: "HTTP/2 in clear", sends: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", want: "HTTP/1.1 400 Bad Request\r\n", why: dataplane.ClosedError},
		{name: "something else", sends: "SSH-2.0-OpenSSH_9.6\r\n", why: dataplane.ClosedError},
		{name: "a record of another kind", sends: "\x17\x03\x03\x00\x05hello", why: dataplane.ClosedError},
		{name: "no room", full: true, why: dataplane.ClosedError},
	} {
		t.Run(c.name, func(t *testing.T) {
			how := newTestTLS(t)
			if c.full {
				how.conf = nil
			}
			parted := make(chan dataplane.Closing, 1)
			s := newStage(t, newEngine, func(s *stage, _ *Config) {
				s.listener.TLS, s.parted = how, parted
				s.listener.Limits.HandshakeTime = shortPause
			})
			conn, err := net.Dial("tcp", s.socket.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, c.sends)
			if c.eof {
				conn.(*net.TCPConn).CloseWrite()
			}
			conn.SetReadDeadline(time.Now().Add(patience))
			got, err := io.ReadAll(conn)
			if !strings.HasPrefix(string(got), c.want) || c.want == "" && len(got) > 0 && got[0] != 0x15 {
				t.Errorf("it was told %q (%v), want %q", got, err, c.want)
			}
			conn.Close()
			if why := <-parted; why != c.why {
				t.Errorf("it ended by %q, want %q", why, c.why)
			}
			if !c.full && <-how.met == nil {
				t.Error("the handshake counts as good")
			}
		})
	}
}

// Not the time for the handshake, the time for the head counts after it.
func TestAfterTheHandshakeAHeadIsAwaited(t *testing.T) {
	for name, newEngine := range bothEngines {
		t.Run(name, func(t *testing.T) { afterTheHandshake(t, newEngine) })
	}
}

func afterTheHandshake(t *testing.T, newEngine func(Config) Engine) {
	parted := make(chan dataplane.Closing, 1)
	s := newStage(t, newEngine, func(s *stage, _ *Config) {
		s.sealed, s.parted = true, parted
		s.listener.Limits.HeaderTime = shortPause
	})
	conn, err := tls.Dial("tcp", s.socket.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if !strings.HasPrefix(string(got), "HTTP/1.1 408 ") || err != nil {
		t.Errorf("it was told %q (%v), want a 408 and an end", got, err)
	}
	conn.Close()
	if why := <-parted; why != dataplane.ClosedTime {
		t.Errorf("it ended by %q", why)
	}
}

// A drain lets a handshake end and the request after it be answered; force ends it.
func TestDrainAndHandshakes(t *testing.T) {
	for name, newEngine := range bothEngines {
		t.Run(name, func(t *testing.T) { drainAndHandshakes(t, newEngine) })
	}
}

func drainAndHandshakes(t *testing.T, newEngine func(Config) Engine) {
	s := newStage(t, newEngine, func(s *stage, c *Config) { s.sealed, c.IdleGrace = true, patience })
	tcp, err := net.Dial("tcp", s.socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	slow, err := net.Dial("tcp", s.socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	for s.admitted() < 2 { // they are in before the door closes
		runtime.Gosched()
	}
	ctx, force := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.engine.Shutdown(ctx) }()
	side, _ := s.engine.(*Goroutine)
	if l, loops := s.engine.(*Loop); loops {
		side = l.side
	}
	for !side.draining.Load() { // an answer from before that does not say close
		runtime.Gosched()
	}
	conn := tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
	if _, err := io.WriteString(conn, "GET /answer HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if !strings.Contains(string(got), "made here") || !strings.Contains(string(got), "Connection: close") || err != nil {
		t.Errorf("while draining it was told %q (%v)", got, err)
	}
	force()
	if err := <-ended; !errors.Is(err, dataplane.ErrDrained) {
		t.Errorf("Shutdown = %v, want ErrDrained", err)
	}
}

// Large bodies go both ways whole, by either version.
func TestLargeBodiesThroughTLS(t *testing.T) {
	for name, newEngine := range bothEngines {
		t.Run(name, func(t *testing.T) { largeBodies(t, newEngine) })
	}
}

func largeBodies(t *testing.T, newEngine func(Config) Engine) {
	body := bytes.Repeat([]byte("abcdefgh"), 3<<20/8)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := newStage(t, newEngine, func(s *stage, _ *Config) { s.sealed = true })
		sent := make(chan int64, 1)
		go func() {
			c, err := s.server.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for line := ""; line != "\r\n"; {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
			}
			n, _ := io.CopyN(io.Discard, r, int64(len(body)))
			sent <- n
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
			c.Write(body)
		}()
		conn, err := tls.Dial("tcp", s.socket.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", len(body))
		if _, err := conn.Write(body); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		_, answer, _ := bytes.Cut(got, []byte("\r\n\r\n"))
		if n := <-sent; err != nil || n != int64(len(body)) || !bytes.Equal(answer, body) {
			t.Errorf("%s: %d bytes arrived and %d came back (%v), want %d", tls.VersionName(version), n, len(answer), err, len(body))
		}
	}
}
