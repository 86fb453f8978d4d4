package engine

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

const askAnswer = "GET /answer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

// asideStage is a stage with one loop, whose handshakes go aside, as many as are named "slow",
// and stay there until held is closed. Each tells of that by there.
func asideStage(t *testing.T, set func(*stage, *testTLS)) (s *stage, how *testTLS, there, held chan struct{}) {
	t.Helper()
	how = newTestTLS(t)
	there, held = make(chan struct{}, 100), make(chan struct{})
	how.conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch hello.ServerName {
		case "panic":
			panic("no certificate")
		case "slow":
			if err := hello.Conn.(dataplane.Aside).Aside(); err != nil {
				return nil, err
			}
			there <- struct{}{}
			<-held
		}
		return nil, nil
	}
	s = newStage(t, bothEngines["loop"], func(s *stage, c *Config) {
		c.Linger = time.Hour // whose client is waited for is seen to be
		s.waited = true
		s.listener.TLS = how
		if set != nil {
			set(s, how)
		}
	})
	return s, how, there, held
}

// fetch has one exchange on a connection of its own.
func (s *stage) fetch(conf *tls.Config) (string, error) {
	conf.InsecureSkipVerify = true
	tcp, err := net.Dial("tcp", s.socket.Addr().String())
	if err != nil {
		return "", err
	}
	defer tcp.Close()
	tcp.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(tcp, conf)
	if _, err := io.WriteString(conn, askAnswer); err != nil {
		return "", err
	}
	got, err := io.ReadAll(conn)
	return string(got), err
}

// What a handshake computes for long keeps nobody waiting who is at the same loop.
func TestALongStepIsHadAside(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s, how, there, held := asideStage(t, nil)
		type result struct {
			got string
			err error
		}
		slow := make(chan result, 1)
		go func() {
			got, err := s.fetch(&tls.Config{ServerName: "slow", MaxVersion: version})
			slow <- result{got, err}
		}()
		<-there
		if got, err := s.fetch(&tls.Config{ServerName: "quick", MaxVersion: version}); !strings.Contains(got, "made here") || err != nil {
			t.Errorf("%s: meanwhile another gets %q (%v)", tls.VersionName(version), got, err)
		}
		close(held)
		if r := <-slow; !strings.Contains(r.got, "made here") || r.err != nil {
			t.Errorf("%s: then it gets %q (%v)", tls.VersionName(version), r.got, r.err)
		}
		for range 2 {
			if err := <-how.met; err != nil {
				t.Errorf("%s: a handshake ended by %v", tls.VersionName(version), err)
			}
		}
	}
}

// Handshakes with certificates of clients, which anyone may make long, are had aside.
func TestCertificatesOfClientsAreJudgedAside(t *testing.T) {
	s, how, _, _ := asideStage(t, func(_ *stage, how *testTLS) { how.conf.ClientAuth = tls.RequireAnyClientCert })
	shown := how.conf.Certificates[0]
	if got, err := s.fetch(&tls.Config{ServerName: "quick", Certificates: []tls.Certificate{shown}}); !strings.Contains(got, "made here") || err != nil {
		t.Errorf("with a certificate a client gets %q (%v)", got, err)
	}
	if err := <-how.met; err != nil {
		t.Errorf("its handshake ended by %v", err)
	}
	if got, err := s.fetch(&tls.Config{ServerName: "quick"}); err == nil {
		t.Errorf("without one a client gets %q", got)
	}
	if err := <-how.met; err == nil {
		t.Error("its handshake counts as good")
	}
}

// However the bytes of a handshake and of the request behind it arrive, nothing is lost.
func TestAHandshakeInPieces(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s, _, _, _ := asideStage(t, nil)
		tcp, err := net.Dial("tcp", s.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		tcp.SetDeadline(time.Now().Add(patience))
		conn := tls.Client(&crumbs{Conn: tcp, stage: s}, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
		if _, err := io.WriteString(conn, askAnswer); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); !strings.Contains(string(got), "made here") || err != nil {
			t.Errorf("%s: it gets %q (%v)", tls.VersionName(version), got, err)
		}
	}
}

// A crumbs is written to a few bytes at a time, each of which the loop has seen before the
// next.
type crumbs struct {
	net.Conn
	stage *stage
}

func (c *crumbs) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := c.Conn.Write(b[n:min(n+61, len(b))])
		if n += m; err != nil {
			return n, err
		}
		c.stage.eachLoop(func(*loop) {})
	}
	return len(b), nil
}

// A shaker that is done has the next handshake, and one that panics ends no more than its own.
func TestAShakerIsUsedAgain(t *testing.T) {
	s, how, _, _ := asideStage(t, nil)
	for i := range 6 {
		name := "quick"
		if i%2 == 1 {
			name = "panic"
		}
		got, err := s.fetch(&tls.Config{ServerName: name})
		if ok := strings.Contains(got, "made here") && err == nil; ok != (i%2 == 0) {
			t.Errorf("handshake %d: %q (%v)", i, got, err)
		}
		if err := <-how.met; (err == nil) != (i%2 == 0) {
			t.Errorf("handshake %d ended by %v", i, err)
		}
	}
	s.eachLoop(func(l *loop) {
		if n := len(l.shakers); n != 1 {
			t.Errorf("%d shakers were made, want 1", n)
		}
	})
}

// The farewell goes out with the last of the answer, and the connection is closed without
// waiting for the client's.
func TestTheFarewellGoesWithTheAnswer(t *testing.T) {
	s, _, _, _ := asideStage(t, nil)
	tcp, err := net.Dial("tcp", s.socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcp.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
	if _, err := io.WriteString(conn, askAnswer); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); !strings.Contains(string(got), "made here") || err != nil {
		t.Errorf("it gets %q (%v), and no farewell", got, err)
	}
	for s.engine.(*Loop).count.Load() > 0 { // though nothing was said and nothing closed here
		runtime.Gosched()
	}
}
