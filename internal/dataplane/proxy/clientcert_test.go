package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"proxyd/internal/config"
)

// mutual is a site with a listener whose clients are believed by ca, and three routes:
// vault.example needs a certificate, open.example does not, plain.example does not say.
func mutual(t *testing.T, ca *authority, listener string, set func(*config.Config)) *secureSite {
	return newSecureSite(t, func(c *config.Config) {
		l := c.Listener["https"]
		l.ClientCA, l.ClientCert = ca.file, listener
		c.Route = []*config.Route{
			{Name: "vault", Host: []string{"vault.example"}, Pool: "app", ClientCert: "require", Log: true},
			{Name: "open", Host: []string{"open.example"}, Pool: "app", ClientCert: "optional", Log: true},
			{Name: "plain", Pool: "app", Log: true},
		}
		if set != nil {
			set(c)
		}
	})
}

// asked sends one request for host over a connection for name, which may be "".
func (s *secureSite) asked(t *testing.T, name, host string, conf *tls.Config, fields ...string) (*http.Response, error) {
	t.Helper()
	conf = conf.Clone()
	conf.InsecureSkipVerify, conf.ServerName = true, name
	conn, err := tls.Dial("tcp", s.at("https"), conf)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n", host, strings.Join(append(fields, ""), "\r\n"))
	return http.ReadResponse(bufio.NewReader(conn), nil)
}

func shows(c tls.Certificate) *tls.Config {
	return &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }}
}

// B7: a route that needs a certificate is for connections for its host alone.
func TestB7RoutesThatNeedACertificate(t *testing.T) {
	ca, other := newAuthority(t, "Clients CA"), newAuthority(t, "Another CA")
	s := mutual(t, ca, "optional", nil)
	good, none := shows(ca.signs(t, "alice", someYear)), &tls.Config{}
	for _, c := range []struct {
		name, sni, host string
		conf            *tls.Config
		want            int // 0: the handshake fails
	}{
		{"with one", "vault.example", "vault.example", good, 200},
		{"whatever the case", "VAULT.example", "Vault.Example:443", good, 200},
		{"without", "vault.example", "vault.example", none, 403},
		{"for another host", "open.example", "vault.example", none, 421},
		{"for another host, with one", "open.example", "vault.example", good, 421},
		{"for none", "", "vault.example", good, 421},
		{"a route that needs none", "open.example", "open.example", none, 200},
		{"a route that does not say", "plain.example", "plain.example", none, 200},
		{"and hosts that differ", "vault.example", "plain.example", none, 200},
		{"of another authority", "plain.example", "plain.example", shows(other.signs(t, "mallory", someYear)), 0},
		{"an expired one", "plain.example", "plain.example", shows(ca.signs(t, "bob", time.Now().Add(-time.Hour))), 0},
	} {
		r, err := s.asked(t, c.sni, c.host, c.conf)
		switch {
		case c.want == 0 && err == nil:
			t.Errorf("%s: %d, and the handshake should fail", c.name, r.StatusCode)
		case c.want != 0 && (err != nil || r.StatusCode != c.want):
			t.Errorf("%s: %v, %v; want %d", c.name, r, err, c.want)
		case c.want >= 400 && !r.Close:
			t.Errorf("%s: the connection stays", c.name)
		}
	}
	for s.tls.under.Load() > 0 { // a client knows before we have counted
		runtime.Gosched()
	}
	wantSeries(t, gather(t, s.Plane), map[string]float64{
		`proxyd_tls_handshakes_total{listener="https",result="client_cert",resumed="false",version=""}`: 2,
		`proxyd_http_local_responses_total{code="403",reason="client_cert",route="vault"}`:              1,
		`proxyd_http_local_responses_total{code="421",reason="misdirected",route="vault"}`:              3,
	})
}

func TestAListenerThatNeedsCertificates(t *testing.T) {
	ca := newAuthority(t, "Clients CA")
	s := mutual(t, ca, "require", nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		none, good := &tls.Config{MaxVersion: version}, shows(ca.signs(t, "alice", someYear))
		good.MaxVersion = version
		if r, err := s.asked(t, "plain.example", "plain.example", none); err == nil {
			t.Errorf("%s: without one %d", tls.VersionName(version), r.StatusCode)
		}
		if r, err := s.asked(t, "plain.example", "plain.example", good); err != nil || r.StatusCode != 200 {
			t.Errorf("%s: with one %v, %v", tls.VersionName(version), r, err)
		}
	}
	for s.tls.under.Load() > 0 {
		runtime.Gosched()
	}
	if got := gather(t, s.Plane)[`proxyd_tls_handshakes_total{listener="https",result="client_cert",resumed="false",version=""}`]; got != 2 {
		t.Errorf("%v handshakes are told to have failed for it, want 2", got)
	}
}

// A server is told of the certificate that was shown, and of nothing that a client pretends.
func TestServersAreToldTheCertificate(t *testing.T) {
	ca := newAuthority(t, "Clients CA")
	s := mutual(t, ca, "optional", nil)
	alice := ca.signs(t, "alice", someYear)
	lie := []string{"Client-Cert: :AAAA:", "client-cert-chain: :AAAA:"}
	for name, c := range map[string]struct {
		conf *tls.Config
		want string
	}{
		"nobody": {&tls.Config{}, ""},
		"alice":  {shows(alice), ":" + base64.StdEncoding.EncodeToString(alice.Certificate[0]) + ":"},
	} {
		if r, err := s.asked(t, "plain.example", "plain.example", c.conf, lie...); err != nil || r.StatusCode != 200 {
			t.Fatalf("%s: %v, %v", name, r, err)
		}
		h := <-s.origin
		if got := strings.Join(h.Values("Client-Cert"), "|"); got != c.want || h.Get("Client-Cert-Chain") != "" {
			t.Errorf("%s: the server is told %q, want %q, and %q", name, got, c.want, h.Get("Client-Cert-Chain"))
		}
	}
}

// revokes writes ca's file with a list of what it has revoked.
func (a *authority) revokes(t *testing.T, serials ...int64) {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(a.text(), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	if err := os.WriteFile(a.file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is revoked is refused without a reload: in new handshakes, in sessions, and on
// connections that stand.
func TestRevokedCertificates(t *testing.T) {
	ca := newAuthority(t, "Clients CA")
	s := mutual(t, ca, "optional", nil)
	conf := shows(ca.signs(t, "alice", someYear))
	conf.InsecureSkipVerify, conf.ServerName, conf.ClientSessionCache = true, "vault.example", tls.NewLRUClientSessionCache(0)
	stands, err := tls.Dial("tcp", s.at("https"), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer stands.Close()
	answers := bufio.NewReader(stands)
	ask := func() int {
		t.Helper()
		fmt.Fprint(stands, "GET / HTTP/1.1\r\nHost: vault.example\r\n\r\n")
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		return r.StatusCode
	}
	if got := ask(); got != 200 {
		t.Errorf("before: %d", got)
	}
	ca.revokes(t, 1, 2)
	s.lookAtTrust()
	if r, err := s.asked(t, "vault.example", "vault.example", conf); err != nil || r.StatusCode != 200 {
		t.Errorf("others are revoked: %v, %v", r, err)
	}
	ca.revokes(t, 1, 77)
	s.lookAtTrust()
	if r, err := s.asked(t, "vault.example", "vault.example", conf); err == nil {
		t.Errorf("it is revoked: %d", r.StatusCode)
	}
	if got := ask(); got != 403 {
		t.Errorf("on a connection that stands: %d", got)
	}
}

// What was signed in between by one who is revoked is worth nothing, in a new handshake and in one
// that was had before.
func TestAuthoritiesInBetweenAreRevoked(t *testing.T) {
	ca := newAuthority(t, "Clients CA")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "Department"}, NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, form, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	department := &authority{key: key}
	if department.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	alice := department.signs(t, "alice", someYear)
	alice.Certificate = append(alice.Certificate, der)
	s := mutual(t, ca, "optional", nil)
	conf := shows(alice)
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	for range 2 {
		if r, err := s.asked(t, "vault.example", "vault.example", conf); err != nil || r.StatusCode != 200 {
			t.Fatalf("before: %v, %v", r, err)
		}
	}
	ca.revokes(t, 5)
	s.lookAtTrust()
	for range 2 {
		if r, err := s.asked(t, "vault.example", "vault.example", conf); err == nil {
			t.Errorf("its department is revoked: %d", r.StatusCode)
		}
	}
}

// A session is resumed with the certificate that it was begun with, on every node, and not
// where another authority is believed.
func TestSessionsOfCertifiedClients(t *testing.T) {
	ca, other := newAuthority(t, "Clients CA"), newAuthority(t, "Another CA")
	secret := func(c *config.Config) { c.Cluster.Secret = "correct horse battery staple" }
	one, two := mutual(t, ca, "optional", secret), mutual(t, ca, "optional", secret)
	conf := shows(ca.signs(t, "alice", someYear))
	conf.ServerName, conf.ClientSessionCache = "vault.example", tls.NewLRUClientSessionCache(0)
	for i, s := range []*secureSite{one, one, two} {
		if _, state, err := s.talk(t, conf, "/"); err != nil || state.DidResume != (i > 0) {
			t.Errorf("connection %d: resumed %t, %v", i, state.DidResume, err)
		}
		if r, err := s.asked(t, "vault.example", "vault.example", conf); err != nil || r.StatusCode != 200 {
			t.Errorf("connection %d: %v, %v", i, r, err)
		}
	}
	open := newSecureSite(t, secret)
	bare := &tls.Config{ServerName: "vault.example", ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	open.talk(t, bare, "/")
	if _, state, err := one.talk(t, bare, "/"); err != nil || state.DidResume {
		t.Errorf("a session from where nobody is asked: resumed %t, %v", state.DidResume, err)
	}
	if err := os.WriteFile(ca.file, append(ca.text(), other.text()...), 0o644); err != nil {
		t.Fatal(err)
	}
	one.lookAtTrust()
	if _, state, err := one.talk(t, conf, "/"); err != nil || state.DidResume {
		t.Errorf("after a change: resumed %t, %v", state.DidResume, err)
	}
}

func TestExplainTellsOfClientCertificates(t *testing.T) {
	s := mutual(t, newAuthority(t, "Clients CA"), "optional", nil)
	for url, want := range map[string]int{"https://vault.example/": 0, "https://plain.example/": 0} {
		e, err := s.Explain(Question{Method: "GET", URL: url, Listener: "https"})
		if err != nil || e.Status != want {
			t.Fatalf("%s: %+v, %v", url, e, err)
		}
		told := false
		for _, stage := range e.Stages {
			told = told || stage.Name == "client_cert"
		}
		if told != strings.Contains(url, "vault") {
			t.Errorf("%s: told %t", url, told)
		}
	}
	e, err := s.Explain(Question{Method: "GET", URL: "https://plain.example/", Header: []string{"Host: vault.example"}, Listener: "https"})
	if err != nil || e.Status != 421 || e.Reason != "misdirected" {
		t.Errorf("of another host: %+v, %v", e, err)
	}
}

// A session is no way around what the place that it is resumed at wants: another name, or another
// listener.
func TestASessionProvesNoMoreThanItsHandshake(t *testing.T) {
	ca := newAuthority(t, "Clients CA")
	s := mutual(t, ca, "optional", func(c *config.Config) {
		c.Listener["open"] = &config.Listener{Name: "open", Address: []string{"127.0.0.2:0"}, TLS: true}
		c.Listener["inner"] = &config.Listener{Name: "inner", Address: []string{"127.0.0.3:0"}, TLS: true, ClientCA: ca.file, ClientCert: "require"}
	})
	talk := func(listener, name string, conf *tls.Config) (status int, resumed bool) {
		t.Helper()
		conf = conf.Clone()
		conf.InsecureSkipVerify, conf.ServerName = true, name
		conn, err := tls.Dial("tcp", s.at(listener), conf)
		if err != nil {
			return 0, false
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name)
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return 0, false
		}
		return r.StatusCode, conn.ConnectionState().DidResume
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			what, from, fromName, to, toName string
			shows                            bool
			status                           int
			resumed                          bool
		}{
			{"the same place", "https", "open.example", "https", "open.example", false, 200, true},
			{"a host that needs a certificate", "https", "open.example", "https", "vault.example", false, 403, true},
			{"likewise, with one", "https", "open.example", "https", "vault.example", true, 200, true},
			{"a listener that needs one", "https", "open.example", "inner", "open.example", false, 0, false},
			{"likewise, with one from elsewhere", "https", "open.example", "inner", "open.example", true, 200, false},
			{"likewise, from where nobody is asked", "open", "open.example", "inner", "open.example", false, 0, false},
			{"a host that needs one, from there", "open", "vault.example", "https", "vault.example", false, 403, false},
			{"a listener that asks nobody", "https", "open.example", "open", "open.example", true, 200, false},
		} {
			conf := &tls.Config{MaxVersion: version}
			if c.shows {
				conf = shows(ca.signs(t, "alice", someYear))
				conf.MaxVersion = version
			}
			conf.ClientSessionCache = &anySession{}
			if status, _ := talk(c.from, c.fromName, conf); status == 0 {
				t.Fatalf("%s: there is no session", c.what)
			}
			if !c.shows {
				conf.GetClientCertificate = nil
			}
			if status, resumed := talk(c.to, c.toName, conf); status != c.status || resumed != c.resumed {
				t.Errorf("%s, resumed at %s: %d, resumed %t; want %d, %t", tls.VersionName(version), c.what, status, resumed, c.status, c.resumed)
			}
		}
	}
}

// anySession brings its latest session along, whomever it was with.
type anySession struct{ s *tls.ClientSessionState }

func (a *anySession) Get(string) (*tls.ClientSessionState, bool) { return a.s, a.s != nil }
func (a *anySession) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		a.s = s
	}
}

// A CA that makes sure that a name is ours has no certificate to show, wherever it asks.
func TestAListenerThatNeedsCertificatesAnswersACA(t *testing.T) {
	ca := newAuthority(t, "Clients CA")
	for _, want := range []string{"require", "optional"} {
		s := mutual(t, ca, want, nil)
		asks := &tls.Config{NextProtos: []string{"acme-tls/1"}}
		if _, err := s.asked(t, "vault.example", "vault.example", asks); err == nil {
			t.Errorf("%s: a challenge that nobody knows is answered", want)
		}
		answer := ca.signs(t, "vault.example", someYear)
		s.Manage(Managed{Handshakes: map[string]*tls.Certificate{"vault.example": &answer}})
		asks.InsecureSkipVerify, asks.ServerName = true, "vault.example"
		conn, err := tls.Dial("tcp", s.at("https"), asks)
		if err != nil {
			t.Fatalf("%s: a CA is told %v", want, err)
		}
		if got := conn.ConnectionState(); got.NegotiatedProtocol != "acme-tls/1" || got.PeerCertificates[0].SerialNumber.Int64() != 77 {
			t.Errorf("%s: a CA gets %q, serial %v", want, got.NegotiatedProtocol, got.PeerCertificates[0].SerialNumber)
		}
		conn.Close()
		r, err := s.asked(t, "plain.example", "plain.example", &tls.Config{})
		if got := err == nil && r.StatusCode == 200; got != (want == "optional") {
			t.Errorf("%s: meanwhile a client without a certificate gets %v, %v", want, r, err)
		}
	}
}
