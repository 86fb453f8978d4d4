package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane/engine"
)

// certFiles writes a certificate for names and its key, and returns the files.
func certFiles(t testing.TB, serial int64, names ...string) *config.Cert {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certOf(t, key, serial, names...)
}

// certOf is certFiles with a key that is there.
func certOf(t testing.TB, key crypto.Signer, serial int64, names ...string) *config.Cert {
	t.Helper()
	form := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pair.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})...)
	if err := os.WriteFile(file, both, 0o640); err != nil {
		t.Fatal(err)
	}
	return &config.Cert{Cert: file, Key: file}
}

// A secureSite is a plane with a listener for TLS and one that redirects to it.
type secureSite struct {
	*Plane
	conf   *config.Config
	log    *lines
	origin chan http.Header // of requests that came to the server
	ahead  atomic.Int64     // how far its clock is, in nanoseconds
}

func newSecureSite(t *testing.T, set func(*config.Config)) *secureSite {
	t.Helper()
	s := &secureSite{log: &lines{}, origin: make(chan http.Header, 10)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.origin <- r.Header:
		default:
		}
		if r.URL.Path == "/own" {
			w.Header().Set("Strict-Transport-Security", "max-age=1")
		}
		io.WriteString(w, "hello\n")
	}))
	t.Cleanup(server.Close)
	s.conf = base()
	s.conf.Pool["app"] = pool("app", server.Listener.Addr().String())
	s.conf.Pool["app"].Timeout = config.Timeout{Connect: time.Second, Send: time.Second, Read: time.Second, Tunnel: time.Second, Idle: time.Second}
	s.conf.Limits = config.Limits{Conns: 1000, Body: 1 << 20, HeaderBytes: 32 << 10, URIBytes: 8 << 10, Fields: 100, HeaderTime: 10 * time.Second, Idle: 10 * time.Second, HandshakeTime: 10 * time.Second, Handshakes: 100}
	s.conf.Listener = map[string]*config.Listener{
		"https": {Name: "https", Address: []string{"127.0.0.1:0"}, TLS: true},
	}
	s.conf.TLS = config.TLS{Min: "1.2", Profile: "intermediate", HSTS: 180 * 24 * time.Hour}
	s.conf.Cert = []*config.Cert{certFiles(t, 1, "one.example"), certFiles(t, 2, "*.two.example")}
	if set != nil {
		set(s.conf)
	}
	now := func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }
	s.Plane = New(Options{Engine: engine.NewLoop(engine.Config{Loops: 1}), AccessLog: s.log, Now: now})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	if err := s.Apply(s.conf); err != nil {
		t.Fatal(err)
	}
	return s
}

// at is where a listener listens.
func (s *secureSite) at(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.doors {
		if d.listener.Name == name {
			return d.socket.Addr().String()
		}
	}
	return ""
}

// talk sends one request over a new connection, and returns the answer and what is known
// of the connection.
func (s *secureSite) talk(t *testing.T, conf *tls.Config, path string) (*http.Response, tls.ConnectionState, error) {
	t.Helper()
	conf.InsecureSkipVerify = true
	conn, err := tls.Dial("tcp", s.at("https"), conf)
	if err != nil {
		return nil, tls.ConnectionState{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n", path)
	all, err := io.ReadAll(conn)
	if err != nil {
		return nil, conn.ConnectionState(), err
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(all)), nil)
	return r, conn.ConnectionState(), err
}

func TestHTTPSIsToldToServersClientsAndTheLog(t *testing.T) {
	s := newSecureSite(t, nil)
	r, _, err := s.talk(t, &tls.Config{ServerName: "one.example"}, "/")
	if err != nil || r.StatusCode != 200 {
		t.Fatalf("answer %v, %v", r, err)
	}
	if got := r.Header.Values("Strict-Transport-Security"); len(got) != 1 || got[0] != "max-age=15552000" {
		t.Errorf("Strict-Transport-Security is %q", got)
	}
	h := <-s.origin
	if h.Get("X-Forwarded-Proto") != "https" || !strings.Contains(h.Get("Forwarded"), "proto=https") {
		t.Errorf("the server is told %v", h)
	}
	if r, _, err := s.talk(t, &tls.Config{}, "/own"); err != nil || r.Header.Get("Strict-Transport-Security") != "max-age=1" || len(r.Header.Values("Strict-Transport-Security")) != 1 {
		t.Errorf("a server's own word becomes %v, %v", r, err)
	}
	s.access.Close(t.Context())
	if log := s.log.String(); !strings.Contains(log, `"tls":"1.3","sni":"one.example"`) {
		t.Errorf("the log has %s", log)
	}
}

func TestWhichCertificateAClientGets(t *testing.T) {
	s := newSecureSite(t, nil)
	for sni, want := range map[string]int64{"one.example": 1, "www.two.example": 2, "two.example": 1, "other.example": 1, "": 1} {
		_, state, err := s.talk(t, &tls.Config{ServerName: sni}, "/")
		if err != nil || state.PeerCertificates[0].SerialNumber.Int64() != want {
			t.Errorf("%q gets %v (%v), want %d", sni, state.PeerCertificates, err, want)
		}
	}
	// A dot at the end is for no name in a handshake (RFC 6066, 3). Go's client takes it off.
	raw, err := net.Dial("tcp", s.at("https"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := tls.Client(dotted{raw}, &tls.Config{InsecureSkipVerify: true, ServerName: "one.example-"}).Handshake(); err == nil || !strings.Contains(err.Error(), "error decoding message") {
		t.Errorf("a name with a dot at its end gets %v", err)
	}
	// A changed file is in use without a reload.
	text, err := os.ReadFile(certFiles(t, 3, "one.example").Cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.conf.Cert[0].Cert, text, 0o640); err != nil {
		t.Fatal(err)
	}
	s.tls.certs.Look()
	if _, state, err := s.talk(t, &tls.Config{ServerName: "one.example"}, "/"); err != nil || state.PeerCertificates[0].SerialNumber.Int64() != 3 {
		t.Errorf("after a change: %v, %v", state.PeerCertificates, err)
	}
	if got := s.Certificates(); len(got) != 2 || got[0].Serial != "3" || got[1].Subject != "*.two.example" {
		t.Errorf("Certificates() = %v", got)
	}
}

// dotted says a dot for a dash at the end of the name.
type dotted struct{ net.Conn }

func (d dotted) Write(b []byte) (int, error) {
	return d.Conn.Write(bytes.ReplaceAll(b, []byte("one.example-"), []byte("one.example.")))
}

// G5, G6: what is too old, or has no protocol in common with us, is refused in the handshake.
func TestG5G6WhatIsNotSpokenIsRefused(t *testing.T) {
	s := newSecureSite(t, nil)
	for name, c := range map[string]struct {
		conf *tls.Config
		ok   bool
	}{
		"TLS 1.3":               {&tls.Config{MinVersion: tls.VersionTLS13}, true},
		"TLS 1.2":               {&tls.Config{MaxVersion: tls.VersionTLS12}, true},
		"TLS 1.1":               {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		"no forward secrecy":    {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
		"no authenticated mode": {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
		"ALPN http/1.1":         {&tls.Config{NextProtos: []string{"h2", "http/1.1"}}, true},
		"ALPN http/1.0":         {&tls.Config{NextProtos: []string{"http/1.0"}}, true},
		"ALPN http/1.0 first":   {&tls.Config{NextProtos: []string{"http/1.0", "http/1.1"}}, true},
		"ALPN h2 alone":         {&tls.Config{NextProtos: []string{"h2"}}, false},
		"ALPN of mail":          {&tls.Config{NextProtos: []string{"imap"}}, false},
		"ALPN of a challenge":   {&tls.Config{NextProtos: []string{"acme-tls/1"}}, false}, // there is none
		"no ALPN":               {&tls.Config{}, true},
	} {
		_, state, err := s.talk(t, c.conf, "/")
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		want := "http/1.1"
		if len(c.conf.NextProtos) == 1 {
			want = c.conf.NextProtos[0]
		}
		if err == nil && len(c.conf.NextProtos) > 0 && state.NegotiatedProtocol != want {
			t.Errorf("%s: %q is spoken", name, state.NegotiatedProtocol)
		}
	}
	modern := *s.conf
	modern.TLS.Min = "1.3"
	if err := s.Apply(&modern); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.talk(t, &tls.Config{MaxVersion: tls.VersionTLS12}, "/"); err == nil {
		t.Error("TLS 1.2 is spoken where 1.3 is the least")
	}
}

// Just what the documentation says is spoken, by either profile and with either kind of key.
func TestWhatTheProfilesOffer(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := newSecureSite(t, func(c *config.Config) { c.Cert = append(c.Cert, certOf(t, key, 3, "three.example")) })
	modern := *s.conf
	modern.TLS = config.TLS{Min: "1.2", Profile: "modern"}
	for _, c := range []struct {
		conf   *config.Config
		suites []string // of TLS 1.2
	}{
		{s.conf, []string{
			"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
			"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
		}},
		{&modern, nil},
	} {
		if err := s.Apply(c.conf); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
			for _, name := range []string{"one.example", "three.example"} {
				_, state, err := s.talk(t, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}}, "/")
				if err == nil && state.CipherSuite == suite.ID {
					got = append(got, suite.Name)
				}
			}
		}
		if slices.Sort(got); !slices.Equal(got, c.suites) {
			t.Errorf("%s: of TLS 1.2 there are %v, want %v", c.conf.TLS.Profile, got, c.suites)
		}
		for group, want := range map[tls.CurveID]bool{tls.X25519MLKEM768: true, tls.X25519: true, tls.CurveP256: true, tls.CurveP384: true, tls.CurveP521: false} {
			_, state, err := s.talk(t, &tls.Config{ServerName: "one.example", MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{group}}, "/")
			if (err == nil) != want || err == nil && state.CurveID != group {
				t.Errorf("%s: keys exchanged by %v: %v", c.conf.TLS.Profile, group, err)
			}
		}
	}
}

// Handshakes that compute for long, because of our key or of what the client has, are had
// elsewhere than at the loops, and are none the worse.
func TestSlowHandshakes(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := newSecureSite(t, func(c *config.Config) { c.Cert = append(c.Cert, certOf(t, key, 3, "three.example")) })
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, conf := range map[string]*tls.Config{
			"RSA":       {ServerName: "three.example"},
			"secp384r1": {ServerName: "one.example", CurvePreferences: []tls.CurveID{tls.CurveP384}},
			"both":      {ServerName: "three.example", CurvePreferences: []tls.CurveID{tls.CurveP384}},
			"neither":   {ServerName: "one.example"},
		} {
			conf.MaxVersion = version
			r, state, err := s.talk(t, conf, "/")
			if err != nil || r.StatusCode != 200 || state.Version != version {
				t.Errorf("%s, %s: %v, %v", tls.VersionName(version), name, r, err)
			}
		}
	}
	wantSeries(t, gather(t, s.Plane), map[string]float64{
		`proxyd_tls_handshakes_total{listener="https",result="ok",resumed="false",version="1.2"}`: 4,
		`proxyd_tls_handshakes_total{listener="https",result="ok",resumed="false",version="1.3"}`: 4,
		`proxyd_tls_handshakes_total{listener="https",result="error",resumed="false",version=""}`: 0,
		`proxyd_tls_handshakes_total{listener="https",result="limit",resumed="false",version=""}`: 0,
	})
	if n := s.tls.under.Load(); n != 0 {
		t.Errorf("%d handshakes are under way", n)
	}
}

// A session is resumed over a reload, and on another node of the cluster.
func TestSessionsAreResumedElsewhere(t *testing.T) {
	secret := func(c *config.Config) { c.Cluster.Secret = "correct horse battery staple" }
	one, two := newSecureSite(t, secret), newSecureSite(t, secret)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conf := &tls.Config{ServerName: "one.example", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
		for i, s := range []*secureSite{one, one, two, one} {
			_, state, err := s.talk(t, conf, "/")
			if err != nil || state.DidResume != (i > 0) {
				t.Errorf("%s, connection %d: resumed %t (%v)", tls.VersionName(version), i, state.DidResume, err)
			}
			if i == 0 {
				if err := one.Apply(one.conf); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	stranger := newSecureSite(t, nil)
	conf := &tls.Config{ServerName: "one.example", ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	one.talk(t, conf, "/")
	if _, state, err := stranger.talk(t, conf, "/"); err != nil || state.DidResume {
		t.Errorf("a node of no cluster resumes a session of one (%v)", err)
	}
}

// A ticket is taken for a turn of the keys and the next, then the client has a full handshake.
func TestATicketOlderThanTheRingIsNotTaken(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			later time.Duration
			want  bool
		}{{0, true}, {ticketTurn, true}, {-ticketTurn, true}, {2 * ticketTurn, false}, {-2 * ticketTurn, false}} {
			s := newSecureSite(t, nil)
			conf := &tls.Config{ServerName: "one.example", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
			if _, _, err := s.talk(t, conf, "/"); err != nil {
				t.Fatal(err)
			}
			s.ahead.Store(int64(c.later))
			if r, state, err := s.talk(t, conf, "/"); err != nil || r.StatusCode != 200 || state.DidResume != c.want {
				t.Errorf("%s, %v later: resumed %t (%v), want %t", tls.VersionName(version), c.later, state.DidResume, err, c.want)
			}
		}
	}
}

func TestTicketKeysTurn(t *testing.T) {
	var a, b tickets
	c := &config.Config{Cluster: config.Cluster{Secret: "correct horse battery staple"}}
	a.use(c)
	b.use(c)
	now := time.Date(2026, 11, 27, 13, 0, 0, 0, time.UTC)
	keys := a.at(now)
	if _, fresh := a.turn(now.Add(time.Hour)); fresh {
		t.Error("keys turn within a turn")
	}
	next, fresh := a.turn(now.Add(ticketTurn))
	if !fresh || next[0] == keys[0] || next[1] != keys[0] || keys[2] != next[0] {
		t.Error("the next turn does not know the key of the one before, or that did not know it")
	}
	if ahead := b.at(now.Add(ticketTurn)); ahead[0] != next[0] {
		t.Error("another node of the cluster has other keys")
	}
	b.use(&config.Config{})
	if b.at(now)[0] == keys[0] {
		t.Error("a node alone has the keys of the cluster")
	}
}

// E7: more handshakes than the limits allow are not begun, and who takes too long is not
// waited for.
func TestE7HandshakesAreLimited(t *testing.T) {
	s := newSecureSite(t, func(c *config.Config) {
		c.Limits.Handshakes, c.Limits.HandshakesPerIP, c.Limits.HandshakeTime = 100, 1, 300*time.Millisecond
	})
	slow, err := net.Dial("tcp", s.at("https"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	for s.tls.under.Load() == 0 {
		runtime.Gosched()
	}
	if _, _, err := s.talk(t, &tls.Config{}, "/"); err == nil {
		t.Error("a second handshake of one address is had")
	}
	slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := slow.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the slow one is waited for: %v", err)
	}
	for s.tls.under.Load() > 0 {
		runtime.Gosched()
	}
	if _, _, err := s.talk(t, &tls.Config{}, "/"); err != nil {
		t.Errorf("after it: %v", err)
	}
	got := gather(t, s.Plane)
	wantSeries(t, got, map[string]float64{
		`proxyd_tls_handshakes_total{listener="https",result="limit",resumed="false",version=""}`:     1,
		`proxyd_tls_handshakes_total{listener="https",result="timeout",resumed="false",version=""}`:   1,
		`proxyd_tls_handshakes_total{listener="https",result="cleartext",resumed="false",version=""}`: 0,
		`proxyd_tls_handshakes_total{listener="https",result="ok",resumed="false",version="1.3"}`:     1,
		`proxyd_tls_handshake_seconds{listener="https"}`:                                              1,
		`proxyd_tls_certificate_fault{source="file",subject="one.example"}`:                           0,
	})
	if end := got[`proxyd_tls_certificate_not_after_timestamp_seconds{serial="1",source="file",subject="one.example"}`]; end < float64(time.Now().Unix()) {
		t.Errorf("the certificate ends at %v", end)
	}
}

func TestAListenerSendsEverybodyToHTTPS(t *testing.T) {
	s := newSecureSite(t, func(c *config.Config) {
		c.Listener["https"].Address = []string{"127.0.0.1:0"}
		c.Listener["http"] = &config.Listener{Name: "http", Address: []string{"127.0.0.2:0"}, Redirect: "https"}
		c.Listener["plain"] = &config.Listener{Name: "plain", Address: []string{"127.0.0.3:0"}}
	})
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := client.Get("http://" + s.at("http") + "/a%20b?c=d")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if got, want := r.Header.Get("Location"), "https://127.0.0.2/a%20b?c=d"; r.StatusCode != 308 || got != want {
		t.Errorf("%d to %q, want 308 to %q", r.StatusCode, got, want)
	}
	if r.Header.Get("Strict-Transport-Security") != "" {
		t.Error("a client is told of HSTS in clear")
	}
	if r, err = client.Get("http://" + s.at("plain") + "/"); err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 200 || r.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("in clear, by a server: %d, HSTS %q", r.StatusCode, r.Header.Get("Strict-Transport-Security"))
	}
	if err := s.Probe(t.Context()); err != nil {
		t.Errorf("Probe() = %v", err)
	}
	e, err := s.Explain(Question{Method: "GET", URL: "http://one.example/x", Listener: "http"})
	if err != nil || e.Status != 308 || e.Reason != "redirect" || e.Route != nil {
		t.Errorf("Explain() = %+v, %v", e, err)
	}
	wantSeries(t, gather(t, s.Plane), map[string]float64{`proxyd_tls_handshakes_total{listener="https",result="ok",resumed="false",version="1.3"}`: 0})
}

func TestABadCertificateRefusesTheReload(t *testing.T) {
	s := newSecureSite(t, nil)
	bad := *s.conf
	bad.Cert = []*config.Cert{{Cert: s.conf.Cert[0].Cert, Key: s.conf.Cert[1].Key}}
	if err := s.Apply(&bad); err == nil || !strings.Contains(err.Error(), "does not belong to certificate") {
		t.Errorf("Apply() = %v", err)
	}
	if _, state, err := s.talk(t, &tls.Config{ServerName: "www.two.example"}, "/"); err != nil || state.PeerCertificates[0].SerialNumber.Int64() != 2 {
		t.Errorf("after it: %v", err)
	}
}

// One text serves all nodes of a cluster; the witness among them needs no key.
func TestAWitnessNeedsNoCertificate(t *testing.T) {
	c := base()
	c.Cluster.Witness, c.Listener = true, nil
	c.Cert = []*config.Cert{{Cert: "/nowhere/h.crt", Key: "/nowhere/h.key"}}
	p := New(Options{Engine: stillEngine{}, AccessLog: io.Discard, Listen: func(string, string) (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }})
	t.Cleanup(func() { p.Shutdown(context.Background()) })
	if err := p.Apply(c); err != nil {
		t.Errorf("Apply() = %v", err)
	}
}
