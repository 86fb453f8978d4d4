package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"proxyd/internal/freeport"
)

// An authority issues certificates for the tests of one test.
type authority struct {
	t    *testing.T
	dir  string
	file string // its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.write(name+".pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o640); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// issue returns a certificate for names, and the files of it and its key.
func (a *authority) issue(names ...string) (pair tls.Certificate, cert, key string) {
	a.t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.last++
	form := &x509.Certificate{SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, form, a.cert, signer.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = a.write(names[0]+".crt", "CERTIFICATE", der), a.write(names[0]+".key", "PRIVATE KEY", text)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: signer}, cert, key
}

// pool is what believes the authority.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// secureServer is a server of HTTPS that says its name, the protocol that it is spoken to in, and
// who shows it a certificate. It returns its port.
func secureServer(t *testing.T, name string, conf *tls.Config, http2 bool) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			shown = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %d", name, r.Proto, shown, len(body))
	}))
	s.TLS, s.EnableHTTP2 = conf, http2
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// example is a file of docs/examples with other words in some places. Each must be in it.
func example(t *testing.T, name string, words ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/examples/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(words); i += 2 {
		if !strings.Contains(string(text), words[i]) {
			t.Fatalf("%s has no %s any more", name, words[i])
		}
	}
	return strings.NewReplacer(words...).Replace(string(text))
}

// askFor has one request for a host answered on a connection of its own, and returns status and
// body, or why there is no answer.
func askFor(t *testing.T, url, host string, conf *tls.Config) (int, string, error) {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	q, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = host
	r, err := client.Do(q)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}

// The example of servers that speak TLS runs: each pool verifies as it says, shows what it is to
// show, and a server whose certificate is another's gets nothing.
func TestTheHTTPSServersExampleRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	internal, public := newAuthority(t, "internal"), newAuthority(t, "public")
	local, _, _ := internal.issue("localhost")
	billing, _, _ := internal.issue("billing.internal")
	alien, _, _ := public.issue("localhost")
	_, edge, edgeKey := internal.issue("edge")
	mutual := &tls.Config{Certificates: []tls.Certificate{billing}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: internal.pool()}
	one := secureServer(t, "api-1", &tls.Config{Certificates: []tls.Certificate{local}}, false)
	two := secureServer(t, "api-2", &tls.Config{Certificates: []tls.Certificate{alien}}, false) // not by the pool's authority
	three, four := secureServer(t, "billing-1", mutual, false), secureServer(t, "billing-2", mutual.Clone(), false)
	five := secureServer(t, "origin", &tls.Config{Certificates: []tls.Certificate{alien}}, false)
	t.Setenv("SSL_CERT_FILE", public.file) // what the system trusts
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	listen := freeport.Address(t)
	p := launch(t, example(t, "https-servers.toml",
		"api-1.internal:8443", "localhost:"+one, "api-2.internal:8443", "localhost:"+two,
		"10.0.1.5:8443", "127.0.0.1:"+three, "10.0.1.6:8443", "127.0.0.1:"+four,
		"/etc/proxyd/internal-ca.pem", internal.file, "/etc/proxyd/edge.crt", edge, "/etc/proxyd/edge.key", edgeKey,
		"https://origin.example.net", "https://localhost:"+five)+
		fmt.Sprintf("\n[listener.http]\naddress = %q\n", listen))

	p.eventually("the check has found api-2 out", func() bool {
		pools, err := p.Pools(t.Context())
		return err == nil && strings.Contains(fmt.Sprintf("%+v", pools), "signed by no authority of")
	})
	seen := map[string]int{}
	for host, want := range map[string]string{"api.example.com": "api-1 HTTP/1.1 nobody 0", "billing.example.com": "HTTP/1.1 edge 0", "example.com": "origin HTTP/1.1 nobody 0"} {
		for range 6 {
			status, body, err := askFor(t, "http://"+listen+"/", host, nil)
			if err != nil || status != 200 || !strings.HasSuffix(body, want) {
				t.Errorf("%s: %d %q (%v), want %q", host, status, body, err, want)
			}
			seen[strings.Fields(body + " ")[0]]++
		}
	}
	if seen["billing-1"] != 3 || seen["billing-2"] != 3 || seen["api-2"] != 0 {
		t.Errorf("the servers answered %v", seen)
	}
}

// The example of client certificates runs: who has none, one of another authority, or came for
// another host, gets no more than is promised.
func TestTheClientCertificatesExampleRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	ours, clients, others := newAuthority(t, "ours"), newAuthority(t, "clients"), newAuthority(t, "others")
	_, shop, shopKey := ours.issue("shop.example.com", "vault.example.com")
	good, _, _ := clients.issue("alice")
	bad, _, _ := others.issue("mallory")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %t", r.Host, strings.HasPrefix(r.Header.Get("Client-Cert"), ":"))
	}))
	t.Cleanup(server.Close)
	origin := strings.TrimPrefix(server.URL, "http://")
	open, inner := freeport.Address(t), freeport.Address(t)
	launch(t, example(t, "client-certificates.toml", `":443"`, fmt.Sprintf("%q", open), `":8443"`, fmt.Sprintf("%q", inner),
		"/etc/proxyd/clients.pem", clients.file, "/etc/ssl/shop.crt", shop, "/etc/ssl/shop.key", shopKey,
		"10.0.1.5:8200", origin, "10.0.1.6:8080", origin))

	for _, c := range []struct {
		what, at, came, host string
		shown                *tls.Certificate
		status               int // 0: no connection
		body                 string
	}{
		{"the vault with a certificate", open, "vault.example.com", "vault.example.com", &good, 200, "vault.example.com true"},
		{"the vault without one", open, "vault.example.com", "vault.example.com", nil, 403, ""},
		{"the vault on a connection for the shop", open, "shop.example.com", "vault.example.com", &good, 421, ""},
		{"the shop without one", open, "shop.example.com", "shop.example.com", nil, 200, "shop.example.com false"},
		{"the shop with one", open, "shop.example.com", "shop.example.com", &good, 200, "shop.example.com true"},
		{"the shop with one of another authority", open, "shop.example.com", "shop.example.com", &bad, 0, ""},
		{"inside with one", inner, "shop.example.com", "shop.example.com", &good, 200, "shop.example.com true"},
		{"inside without one", inner, "shop.example.com", "shop.example.com", nil, 0, ""},
		{"inside with one of another authority", inner, "shop.example.com", "shop.example.com", &bad, 0, ""},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			conf := &tls.Config{ServerName: c.came, RootCAs: ours.pool(), MinVersion: version, MaxVersion: version}
			if c.shown != nil { // whoever is asked for
				conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.shown, nil }
			}
			status, body, err := askFor(t, "https://"+c.at+"/", c.host, conf)
			if status != c.status || (c.status == 0) != (err != nil) || c.body != "" && body != c.body {
				t.Errorf("%s, %s: %d %q (%v), want %d %q", tls.VersionName(version), c.what, status, body, err, c.status, c.body)
			}
		}
	}
}

// Servers are spoken to in HTTP/2 over TLS; one that does not offer it is not spoken to in
// anything else, and the log says why.
func TestHTTP2ToServersOverTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	a := newAuthority(t, "internal")
	local, _, _ := a.issue("localhost")
	_, edge, edgeKey := a.issue("edge")
	conf := func(protos ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{local}, NextProtos: protos, ClientAuth: tls.RequestClientCert}
	}
	both := secureServer(t, "both", conf(), true)
	old := secureServer(t, "old", conf("http/1.1"), false) // refuses who offers only h2, by an alert
	mute := tlsWithoutALPN(t, conf())
	listen := freeport.Address(t)
	text := fmt.Sprintf("[listener.http]\naddress = %q\n", listen)
	for name, at := range map[string]string{"both": both, "old": old, "mute": mute} {
		text += fmt.Sprintf("[pool.%s]\nservers = [\"localhost:%s\"]\nprotocol = \"h2\"\ntls = { ca = %q, cert = %q, key = %q }\n[[route]]\nhost = %q\npool = %q\n",
			name, at, a.file, edge, edgeKey, name+".example", name)
	}
	p := launch(t, text)
	for range 3 {
		if status, body, err := askFor(t, "http://"+listen+"/", "both.example", nil); err != nil || status != 200 || body != "both HTTP/2.0 edge 0" {
			t.Errorf("a server of HTTP/2: %d %q (%v)", status, body, err)
		}
	}
	if n := p.metric(`proxyd_upstream_tls_handshakes_total{pool="both",result="ok",resumed="false",server="localhost:` + both + `"}`); n != 1 {
		t.Errorf("%v handshakes with it for 3 requests, want 1", n)
	}
	for _, name := range []string{"old", "mute"} {
		status, body, err := askFor(t, "http://"+listen+"/", name+".example", nil)
		if err != nil || status != 502 || strings.Contains(body, "HTTP/1.1 edge") {
			t.Errorf("the server %s: %d %q (%v), want 502", name, status, body, err)
		}
	}
	p.eventually("the log says why", func() bool {
		log := p.log.String()
		return strings.Contains(log, fmt.Sprintf("pool=old server=localhost:%s reason=\"it does not offer HTTP/2 (ALPN h2)\"", old)) &&
			strings.Contains(log, fmt.Sprintf("pool=mute server=localhost:%s reason=\"it does not offer HTTP/2 (ALPN h2)\"", mute))
	})
}

// tlsWithoutALPN is a server that knows nothing of ALPN, as some old ones. It returns its port.
func tlsWithoutALPN(t *testing.T, conf *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the test
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(io.Discard, c)
			}()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// gRPC goes from a client that speaks TLS to a server that speaks TLS: calls of every kind.
func TestGRPCOverTLSOnBothSides(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	a := newAuthority(t, "internal")
	local, _, _ := a.issue("localhost")
	_, front, frontKey := a.issue("grpc.example.com")
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&local)))
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	go server.Serve(socket)
	t.Cleanup(server.Stop)
	listen := freeport.Address(t)
	p := launch(t, fmt.Sprintf(`
[listener.https]
address = %q
tls     = true
[[cert]]
cert = %q
key  = %q
[pool.greeter]
servers  = ["localhost:%d"]
protocol = "h2"
tls      = { ca = %q }
[[route]]
path = "/grpc.testing.TestService/*"
pool = "greeter"
`, listen, front, frontKey, socket.Addr().(*net.TCPAddr).Port, a.file))
	cc, err := grpc.NewClient(listen, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: "grpc.example.com", RootCAs: a.pool()})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	client := testgrpc.NewTestServiceClient(cc)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := client.EmptyCall(ctx, &testgrpc.Empty{}); err != nil {
		t.Fatal(err)
	}
	for _, do := range []func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
		interop.DoLargeUnaryCall, interop.DoClientStreaming, interop.DoServerStreaming, interop.DoPingPong, interop.DoStatusCodeAndMessage, interop.DoCancelAfterFirstResponse,
	} {
		do(ctx, client) // a failure ends the process, and says why
	}
	series := fmt.Sprintf(`proxyd_upstream_tls_handshakes_total{pool="greeter",result="ok",resumed="false",server="localhost:%d"}`, socket.Addr().(*net.TCPAddr).Port)
	if n := p.metric(series); n != 1 {
		t.Errorf("%v handshakes with the server, want 1", n)
	}
}
