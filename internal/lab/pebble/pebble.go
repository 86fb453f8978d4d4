// Package pebble runs Pebble, the test CA of Let's Encrypt, with its DNS server, for tests of
// ACME. Both are built of the Go module proxy into a folder of the repository.
package pebble

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"proxyd/internal/freeport"
)

// version of Pebble and its DNS server.
const version = "v2.10.3"

// A CA is a Pebble with a front before it: all that clients say to it goes by the front, which
// counts, and does harm on demand.
type CA struct {
	Directory string // URL, of the front
	RootsFile string // by which the front is trusted
	Roots     *x509.CertPool

	t      testing.TB
	do     func(func() error) error
	direct string // address of Pebble itself
	manage string // of its management, and of that of its DNS
	dns    string
	DNS    string // address of the DNS server
	proxy  *httputil.ReverseProxy
	server *http.Server
	log    syncBuffer

	mu     sync.Mutex
	made   []string // URLs of orders that it made
	before func(path string) bool
	after  func(path string)
}

// Options are how a CA behaves and where it asks.
type Options struct {
	HTTPPort, TLSPort int
	IP                string                   // what every name resolves to at first; "": 127.0.0.1
	Listen            string                   // IP on which it listens; "": 127.0.0.1
	Env               []string                 // such as PEBBLE_WFE_NONCEREJECT=50
	Validity          int                      // seconds of a certificate; 0: 90 days
	EAB               map[string]string        // key identifiers with their keys; required then
	Do                func(func() error) error // runs what opens sockets and starts processes, such as in a namespace; nil: here
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// programs builds both programs once and returns their folder.
func programs(root string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "build", "pebble-"+version)
	if _, err := os.Stat(filepath.Join(dir, "pebble-challtestsrv")); err == nil {
		return dir, nil
	}
	// Built elsewhere first, so that of two tests at once neither sees half of it.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "pebble-new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	for _, name := range []string{"pebble", "pebble-challtestsrv"} {
		cmd := exec.Command("go", "install", "github.com/letsencrypt/pebble/v2/cmd/"+name+"@"+version)
		cmd.Env = append(os.Environ(), "GOBIN="+fresh, "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go install %s: %w\n%s", name, err, out)
		}
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, there := os.Stat(filepath.Join(dir, "pebble")); there != nil {
			return "", err
		}
	}
	return dir, nil
}

// Start runs a CA until the test ends. root is the folder of the repository.
func Start(t testing.TB, root string, o Options) *CA {
	t.Helper()
	bin, err := programs(root)
	if err != nil {
		t.Fatal(err)
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1"
	}
	if o.IP == "" {
		o.IP = "127.0.0.1"
	}
	if o.Do == nil {
		o.Do = func(f func() error) error { return f() }
	}
	dir := t.TempDir()
	c := &CA{t: t, RootsFile: filepath.Join(dir, "ca.pem"), do: o.Do}
	pair := c.certificate(dir, o.Listen)
	at := func() string { return fmt.Sprintf("%s:%d", o.Listen, freeport.Take(t, 1)) }
	c.direct, c.manage, c.dns, c.DNS = at(), at(), at(), at()
	validity := o.Validity
	if validity == 0 {
		validity = 90 * 24 * 3600
	}
	conf := map[string]any{
		"listenAddress": c.direct, "managementListenAddress": c.manage, "certificate": filepath.Join(dir, "ca.pem"), "privateKey": filepath.Join(dir, "ca.key"),
		"httpPort": o.HTTPPort, "tlsPort": o.TLSPort, "retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"domainBlocklist": []string{"blocked.example"},
		"profiles":        map[string]any{"default": map[string]any{"description": "of the tests", "validityPeriod": validity}},
	}
	if o.EAB != nil {
		conf["externalAccountBindingRequired"], conf["externalAccountMACKeys"] = true, o.EAB
	}
	text, err := json.Marshal(map[string]any{"pebble": conf})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pebble.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	c.run(o, exec.Command(filepath.Join(bin, "pebble-challtestsrv"), "-defaultIPv4", o.IP, "-defaultIPv6", "", "-dnsserver", c.DNS,
		"-management", c.dns, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""))
	ca := exec.Command(filepath.Join(bin, "pebble"), "-strict", "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", c.DNS)
	ca.Env = append(append(os.Environ(), "PEBBLE_VA_NOSLEEP=1"), o.Env...)
	c.run(o, ca)
	c.openFront(at(), pair)
	c.waitFor()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the CA said:\n%s", c.log.String())
		}
	})
	return c
}

// certificate makes one for a host that is its own root.
func (c *CA) certificate(dir, host string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "front"}, IPAddresses: []net.IP{net.ParseIP(host)},
		DNSNames: []string{"ca.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		c.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	chain, secret := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for name, text := range map[string][]byte{"ca.pem": chain, "ca.key": secret} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(chain, secret)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Roots = x509.NewCertPool()
	c.Roots.AppendCertsFromPEM(chain)
	return pair
}

func (c *CA) run(o Options, cmd *exec.Cmd) {
	cmd.Stdout, cmd.Stderr = &c.log, &c.log
	if err := c.do(cmd.Start); err != nil {
		c.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the process
		defer close(done)
		_ = cmd.Wait()
	}()
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
}

// openFront opens what clients speak with.
func (c *CA) openFront(at string, pair tls.Certificate) {
	c.Directory = "https://" + at + "/dir"
	to := &url.URL{Scheme: "https", Host: c.direct}
	c.proxy = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		Transport:      c.transport(),
		ModifyResponse: c.note,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	var l net.Listener
	err := c.do(func() (err error) {
		l, err = tls.Listen("tcp", at, &tls.Config{Certificates: []tls.Certificate{pair}})
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.server = &http.Server{Handler: c}
	go func() { _ = c.server.Serve(l) }() // ends with Close
	c.t.Cleanup(func() { c.server.Close() })
}

// transport speaks with the CA and its DNS server.
func (c *CA) transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: c.Roots}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = c.do(func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}
}

// client speaks with them.
func (c *CA) client() *http.Client {
	return &http.Client{Transport: c.transport(), Timeout: 10 * time.Second}
}

// ServeHTTP is the front.
func (c *CA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	before := c.before
	c.mu.Unlock()
	if before != nil && !before(r.URL.Path) {
		panic(http.ErrAbortHandler) // as if the CA were down
	}
	c.proxy.ServeHTTP(w, r)
}

// note counts what the CA did, and lets it come to harm on its way back.
func (c *CA) note(r *http.Response) error {
	path := r.Request.URL.Path
	c.mu.Lock()
	if path == "/order-plz" && r.StatusCode == http.StatusCreated {
		c.made = append(c.made, r.Header.Get("Location"))
	}
	after := c.after
	c.mu.Unlock()
	if after != nil {
		after(path)
	}
	return nil
}

// Orders returns the URLs of the orders that the CA made.
func (c *CA) Orders() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.made...)
}

// Before has ok asked about each request before the CA gets it; it gets none of which ok
// says false, and the client no answer. nil: no more.
func (c *CA) Before(ok func(path string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = ok
}

// After calls f when the CA has answered and before the client hears of it. nil: no more.
func (c *CA) After(f func(path string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after = f
}

// Issued returns how many certificates the CA has issued.
func (c *CA) Issued() int { return strings.Count(c.log.String(), "Issued certificate serial") }

// Log returns what the CA said so far.
func (c *CA) Log() string { return c.log.String() }

// Resolve has a name resolve to an address.
func (c *CA) Resolve(name, ip string) {
	c.t.Helper()
	body := fmt.Sprintf(`{"host":%q,"addresses":[%q]}`, name, ip)
	r, err := c.client().Post("http://"+c.dns+"/add-a", "application/json", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Body.Close()
}

// DNSManagement is the URL at which the DNS server is told what to answer.
func (c *CA) DNSManagement() string { return "http://" + c.dns }

// Issuers are the roots of the certificates that it issues.
func (c *CA) Issuers() *x509.CertPool {
	c.t.Helper()
	r, err := c.client().Get("https://" + c.manage + "/roots/0")
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

func (c *CA) waitFor() {
	c.t.Helper()
	client := c.client()
	for range 300 {
		if r, err := client.Get(c.Directory); err == nil {
			r.Body.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Fatalf("the CA does not answer:\n%s", c.log.String())
}
