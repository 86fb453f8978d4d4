package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"proxyd/internal/freeport"
)

// certificate writes a certificate for a name, and its key, in dir.
func certificate(t *testing.T, dir, name string, serial int64) (cert, key string) {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: text}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// The example of the docs runs, with its certificates and servers here: it serves over a
// reload and an upgrade, and a new certificate without either.
func TestTheHTTPSExampleRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	text, err := os.ReadFile("../../docs/examples/https.toml")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, " ", r.Header.Get("X-Forwarded-Proto"))
	}))
	t.Cleanup(server.Close)
	dir, origin := t.TempDir(), strings.TrimPrefix(server.URL, "http://")
	shop, shopKey := certificate(t, dir, "shop.example.com", 1)
	blog, blogKey := certificate(t, dir, "blog.example.com", 2)
	port, secure := freeport.Take(t, 1), freeport.Take(t, 1)
	here := strings.NewReplacer("/etc/ssl/shop.crt", shop, "/etc/ssl/shop.key", shopKey, "/etc/ssl/blog.crt", blog, "/etc/ssl/blog.key", blogKey,
		`"10.0.1.5:8080", "10.0.1.6:8080"`, fmt.Sprintf("%q", origin), "10.0.1.7:8080", origin).Replace(string(text))
	// What a file without listeners has, at ports that are free here.
	here += fmt.Sprintf("\n[listener.http]\naddress = \"127.0.0.1:%d\"\nredirect = \"https\"\n[listener.https]\naddress = \"127.0.0.1:%d\"\ntls = true\n", port, secure)
	p := launchUpgradable(t, here)

	check := func(when, host string, serial int64) {
		t.Helper()
		conf := &tls.Config{ServerName: host, InsecureSkipVerify: true}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}, Timeout: 10 * time.Second}
		q, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://127.0.0.1:%d/", secure), nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Host = host
		r, err := client.Do(q)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != host+" https" {
			t.Errorf("%s: %q (%v)", when, body, err)
		}
		if got := r.TLS.PeerCertificates[0].SerialNumber.Int64(); got != serial {
			t.Errorf("%s: certificate %d for %s, want %d", when, got, host, serial)
		}
		if got := r.Header.Get("Strict-Transport-Security"); got != "max-age=15552000" {
			t.Errorf("%s: HSTS %q", when, got)
		}
	}
	check("at first", "shop.example.com", 1)
	check("at first", "blog.example.com", 2)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/a?b=c", port))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if want := fmt.Sprintf("https://127.0.0.1:%d/a?b=c", secure); r.StatusCode != 308 || r.Header.Get("Location") != want {
		t.Errorf("in clear: %d to %q, want 308 to %q", r.StatusCode, r.Header.Get("Location"), want)
	}

	certificate(t, dir, "shop.example.com", 3)
	for range 100 {
		all, err := p.Certificates(t.Context())
		if err != nil || len(all) != 2 {
			t.Fatalf("certificates %v, %v", all, err)
		}
		if all[0].Serial == "3" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	check("after a new file", "shop.example.com", 3)
	p.upgrade("")
	check("after an upgrade", "shop.example.com", 3)
	b, err := p.Backup(t.Context())
	if err != nil || !strings.Contains(strings.Join(b.Secrets, " "), "file:"+blogKey) {
		t.Errorf("a backup names the secrets %v (%v)", b.Secrets, err)
	}
}
