package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/engine"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, a.text(), 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) text() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// signs returns a certificate for a name, until a time.
func (a *authority) signs(t testing.TB, name string, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: until.AddDate(-1, 0, 0), NotAfter: until}
	if ip := net.ParseIP(name); ip != nil {
		form.DNSNames, form.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, form, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// signsFile is signs into a file with certificate and key.
func (a *authority) signsFile(t testing.TB, name string, until time.Time) string {
	t.Helper()
	c := a.signs(t, name, until)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pair.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(file, both, 0o640); err != nil {
		t.Fatal(err)
	}
	return file
}

var someYear = time.Now().AddDate(0, 6, 0)

// secureServer is a server that speaks TLS by conf, and tells how it was spoken to.
func secureServer(t *testing.T, conf *tls.Config) (addr string, seen chan *tls.ConnectionState) {
	t.Helper()
	seen = make(chan *tls.ConnectionState, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.TLS
		io.WriteString(w, "hello\n")
	}))
	server.TLS = conf
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), seen
}

// toSecure is a plane before one server that speaks TLS.
func toSecure(t *testing.T, addr string, how *config.PoolTLS, set func(*config.Config)) (*Plane, *lines, *config.Config) {
	t.Helper()
	conf := base()
	conf.Pool["app"] = pool("app", addr)
	conf.Pool["app"].TLS = how
	conf.Pool["app"].Timeout = config.Timeout{Connect: 5 * time.Second, Send: 5 * time.Second, Read: 5 * time.Second, Tunnel: time.Second, Idle: 5 * time.Second}
	conf.Limits = config.Limits{Conns: 1000, Body: 1 << 20, HeaderBytes: 32 << 10, URIBytes: 8 << 10, Fields: 100, HeaderTime: 10 * time.Second, Idle: 10 * time.Second}
	if set != nil {
		set(conf)
	}
	logged := &lines{}
	p := New(Options{Engine: engine.NewLoop(engine.Config{Loops: 1}), AccessLog: io.Discard, Logger: slog.New(slog.NewTextHandler(logged, nil))})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.Shutdown(ctx)
	})
	if err := p.Apply(conf); err != nil {
		t.Fatal(err)
	}
	return p, logged, conf
}

// asks sends a request to the plane and returns the status.
func asks(t *testing.T, p *Plane) int {
	t.Helper()
	p.mu.Lock()
	at := ""
	for _, d := range p.doors {
		at = d.socket.Addr().String()
	}
	p.mu.Unlock()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + at + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	io.Copy(io.Discard, r.Body)
	return r.StatusCode
}

// Servers are believed by their certificate alone; why one is not is told in the log, in
// hactl pools and in the metrics, with the server, the certificate and the name.
func TestServersAreVerified(t *testing.T) {
	ca, other := newAuthority(t, "Internal CA"), newAuthority(t, "Another CA")
	fallen := newAuthority(t, "Fallen CA")
	fallen.revokes(t, 77)
	for name, c := range map[string]struct {
		shown  tls.Certificate
		how    config.PoolTLS
		status int
		told   string
	}{
		"its address":         {shown: ca.signs(t, "127.0.0.1", someYear), how: config.PoolTLS{CA: ca.file}, status: 200},
		"a name of its own":   {shown: ca.signs(t, "api.internal", someYear), how: config.PoolTLS{CA: ca.file, Name: "api.internal"}, status: 200},
		"another name":        {shown: ca.signs(t, "api.internal", someYear), how: config.PoolTLS{CA: ca.file}, status: 502, told: `its certificate (for api.internal, by \"Internal CA\") is not for the name 127.0.0.1`},
		"another authority":   {shown: other.signs(t, "127.0.0.1", someYear), how: config.PoolTLS{CA: ca.file}, status: 502, told: `by \"Another CA\") is signed by no authority of ` + ca.file},
		"nobody it knows":     {shown: ca.signs(t, "127.0.0.1", someYear), status: 502, told: "is signed by no authority that this system trusts"},
		"an expired one":      {shown: ca.signs(t, "127.0.0.1", time.Now().Add(-time.Hour)), how: config.PoolTLS{CA: ca.file}, status: 502, told: "has expired or is not valid yet"},
		"a revoked one":       {shown: fallen.signs(t, "127.0.0.1", someYear), how: config.PoolTLS{CA: fallen.file}, status: 502, told: `its certificate (for 127.0.0.1, by \"Fallen CA\") is revoked by a list in ` + fallen.file},
		"anybody":             {shown: other.signs(t, "x.example", someYear), how: config.PoolTLS{Insecure: true}, status: 200},
		"too old a version":   {shown: ca.signs(t, "127.0.0.1", someYear), how: config.PoolTLS{CA: ca.file, Min: "1.3"}, status: 502, told: "protocol version"},
		"a newer one is well": {shown: ca.signs(t, "127.0.0.1", someYear), how: config.PoolTLS{CA: ca.file, Min: "1.2"}, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			conf := &tls.Config{Certificates: []tls.Certificate{c.shown}}
			if c.how.Min != "" {
				conf.MaxVersion = tls.VersionTLS12
			}
			addr, _ := secureServer(t, conf)
			p, logged, _ := toSecure(t, addr, &c.how, nil)
			if got := asks(t, p); got != c.status {
				t.Errorf("status %d, want %d; log %s", got, c.status, logged)
			}
			good, failed := 1.0, 0.0
			if c.told != "" {
				good, failed = 0, 1
				if log := logged.String(); !strings.Contains(log, c.told) || !strings.Contains(log, addr) {
					t.Errorf("the log says %s, want %s", log, c.told)
				}
				if why := p.Pools()[0].Servers[0].Reason; !strings.Contains(why, strings.ReplaceAll(c.told, `\"`, `"`)) {
					t.Errorf("hactl pools says %q", why)
				}
			}
			wantSeries(t, gather(t, p), map[string]float64{
				`proxyd_upstream_tls_handshakes_total{pool="app",result="ok",resumed="false",server="` + addr + `"}`:     good,
				`proxyd_upstream_tls_handshakes_total{pool="app",result="failed",resumed="false",server="` + addr + `"}`: failed,
				`proxyd_upstream_connects_total{pool="app",result="failed",reused="false"}`:                              failed,
			})
		})
	}
}

// A server gets the name that it is asked for, and the certificate of the pool, and finds a
// session again.
func TestWhatAServerIsShown(t *testing.T) {
	ca := newAuthority(t, "Internal CA")
	mine := ca.signsFile(t, "edge-1", someYear)
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	addr, seen := secureServer(t, &tls.Config{Certificates: []tls.Certificate{ca.signs(t, "api.internal", someYear)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients})
	how := &config.PoolTLS{CA: ca.file, Name: "api.internal", Cert: mine, Key: mine}
	p, _, _ := toSecure(t, addr, how, func(c *config.Config) { c.Pool["app"].Timeout.Idle = 0 }) // no connection is kept
	for i := range 3 {
		if got := asks(t, p); got != 200 {
			t.Fatalf("status %d", got)
		}
		s := <-seen
		if s.ServerName != "api.internal" || s.PeerCertificates[0].Subject.CommonName != "edge-1" || s.NegotiatedProtocol != "http/1.1" || s.DidResume != (i > 0) {
			t.Errorf("connection %d: the server sees %q, %v, %q, resumed %t", i, s.ServerName, s.PeerCertificates[0].Subject, s.NegotiatedProtocol, s.DidResume)
		}
	}
	bare, logged, _ := toSecure(t, addr, &config.PoolTLS{CA: ca.file, Name: "api.internal"}, nil)
	if got := asks(t, bare); got != 502 {
		t.Errorf("without a certificate: %d", got)
	}
	if log := logged.String(); !strings.Contains(log, "it refuses us: certificate required (does it want a client certificate?") {
		t.Errorf("the log says %s", log)
	}
}

// Another authority, by a reload or since its file has changed, makes new connections.
func TestAnotherAuthorityMakesNewConnections(t *testing.T) {
	ca, other := newAuthority(t, "Internal CA"), newAuthority(t, "Another CA")
	addr, seen := secureServer(t, &tls.Config{Certificates: []tls.Certificate{ca.signs(t, "127.0.0.1", someYear)}})
	p, logged, conf := toSecure(t, addr, &config.PoolTLS{CA: ca.file}, nil)
	resumed := func() int {
		n := 0
		for len(seen) > 0 {
			if s := <-seen; s.DidResume {
				n++
			}
		}
		return n
	}
	if got := asks(t, p); got != 200 {
		t.Fatalf("status %d", got)
	}
	if err := p.Apply(conf); err != nil {
		t.Fatal(err)
	}
	if asks(t, p); p.current.Load().pools["app"].Reused.Load() != 1 {
		t.Error("a reload that changes nothing made a new connection")
	}
	if err := os.WriteFile(ca.file, other.text(), 0o644); err != nil {
		t.Fatal(err)
	}
	p.lookAtTrust()
	if got := asks(t, p); got != 502 {
		t.Errorf("with another authority in the file: %d", got)
	}
	if err := os.WriteFile(ca.file, []byte("nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.lookAtTrust()
	if log := logged.String(); !strings.Contains(log, "holds no certificate") {
		t.Errorf("a bad file is passed over in silence: %s", log)
	}
	if err := p.Apply(conf); err == nil {
		t.Error("a reload takes a bad file")
	}
	both := append(ca.text(), other.text()...)
	if err := os.WriteFile(ca.file, both, 0o644); err != nil {
		t.Fatal(err)
	}
	p.lookAtTrust()
	if got := asks(t, p); got != 200 {
		t.Errorf("with both in the file: %d", got)
	}
	if n := resumed(); n > 0 {
		t.Errorf("%d sessions outlived what they were judged by", n)
	}
	clear := *conf
	clear.Pool = map[string]*config.Pool{"app": pool("app", addr)}
	clear.Pool["app"].Timeout = conf.Pool["app"].Timeout
	if err := p.Apply(&clear); err != nil {
		t.Fatal(err)
	}
	if got := asks(t, p); got != 400 { // what its server says to those who speak in clear
		t.Errorf("in clear: %d", got)
	}
}

// A certificate of ours that is replaced is shown from the next connection on, and no kept
// connection goes on with the one before.
func TestAnotherCertificateIsShownToServers(t *testing.T) {
	ca := newAuthority(t, "Internal CA")
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	addr, seen := secureServer(t, &tls.Config{Certificates: []tls.Certificate{ca.signs(t, "127.0.0.1", someYear)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients})
	mine := ca.signsFile(t, "edge-1", someYear)
	p, logged, _ := toSecure(t, addr, &config.PoolTLS{CA: ca.file, Cert: mine, Key: mine}, nil)
	shown := func() string {
		t.Helper()
		if got := asks(t, p); got != 200 {
			t.Fatalf("status %d; log %s", got, logged)
		}
		return (<-seen).PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "edge-1" {
		t.Errorf("at first %s is shown", got)
	}
	replace := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(mine, text, 0o640); err != nil {
			t.Fatal(err)
		}
		p.lookAtTrust()
	}
	replace([]byte("half of it"))
	if got := shown(); got != "edge-1" {
		t.Errorf("while the file is bad %s is shown", got)
	}
	text, err := os.ReadFile(ca.signsFile(t, "edge-2", someYear))
	if err != nil {
		t.Fatal(err)
	}
	replace(text)
	if got := shown(); got != "edge-2" {
		t.Errorf("then %s is shown", got)
	}
}

// Checks and our own requests speak TLS too.
func TestChecksAndFetchesSpeakTLS(t *testing.T) {
	ca := newAuthority(t, "Internal CA")
	addr, seen := secureServer(t, &tls.Config{Certificates: []tls.Certificate{ca.signs(t, "127.0.0.1", someYear)}})
	check := &config.Check{Type: "http", Method: "GET", Path: "/", Interval: time.Hour, Timeout: 5 * time.Second, Rise: 1, Fall: 1, Status: "200"}
	p, _, _ := toSecure(t, addr, &config.PoolTLS{CA: ca.file}, func(c *config.Config) { c.Pool["app"].Check = check })
	if s := <-seen; s == nil {
		t.Error("the check was made in clear")
	}
	q := &dataplane.Request{Method: dataplane.GET, MethodText: []byte("GET"), Path: []byte("/"), Minor: 1}
	r, err := p.fetcher(p.current.Load()).Fetch(t.Context(), "app", q, nil, netip.Addr{})
	if err != nil || r.Status != 200 {
		t.Fatalf("Fetch = %v, %v", r, err)
	}
	if body, err := io.ReadAll(r.Read); string(body) != "hello\n" || err != nil {
		t.Errorf("its body is %q, %v", body, err)
	}
	r.Read.Close()
	if s := <-seen; s == nil {
		t.Error("it was fetched in clear")
	}
	if _, logged := checkedOnce(t, addr, check); !strings.Contains(logged.String(), "is not for the name h") {
		t.Errorf("of a stranger the log says %s", logged)
	}
	inClear := *check
	inClear.TLS, inClear.Status = new(bool), "400"
	if p, logged := checkedOnce(t, addr, &inClear); p.Pools()[0].Servers[0].State != "up" {
		t.Errorf("a check in clear fails: %s", logged)
	}
}

// checkedOnce is a plane that believes the authorities of this system, after its first
// check of a server.
func checkedOnce(t *testing.T, addr string, check *config.Check) (*Plane, *lines) {
	p, logged, _ := toSecure(t, addr, &config.PoolTLS{Name: "h"}, func(c *config.Config) { c.Pool["app"].Check = check })
	for !p.watch.Settled() {
		runtime.Gosched()
	}
	for s := p.current.Load().pools["app"].Servers()[0]; check.TLS == nil && s.Down() == ""; {
		runtime.Gosched()
	}
	return p, logged
}
