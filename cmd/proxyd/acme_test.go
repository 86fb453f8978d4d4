package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/freeport"
	"proxyd/internal/lab/pebble"
)

// served returns the certificate that a node serves for a name at an address, by the roots of
// the CA; nil if it serves none.
func served(at, name string, roots *x509.CertPool) *x509.Certificate {
	d := &net.Dialer{Timeout: 5 * time.Second}
	c, err := tls.DialWithDialer(d, "tcp", at, &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		return nil
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

// inClear asks by http for a host at an address, and follows nothing.
func inClear(t *testing.T, at, host, path string) (status int, location, body string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	q, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+at+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = host
	r, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, r.Header.Get("Location"), string(text)
}

// acmeText is a configuration with a route for each host, and listeners at two ports.
func acmeText(ca *pebble.CA, more string, clear, secure int, hosts ...string) string {
	text := fmt.Sprintf("[acme]\nemail = \"ops@example.com\"\ndirectory = %q\nca = %q\n%s\n", ca.Directory, ca.RootsFile, more)
	text += fmt.Sprintf("[listener.web]\naddress = \"127.0.0.1:%d\"\nredirect = \"https\"\n[listener.secure]\naddress = \"127.0.0.1:%d\"\ntls = true\n", clear, secure)
	for _, h := range hosts {
		text += fmt.Sprintf("[[route]]\nhost = %q\nrespond = { body = \"hello of %s\" }\n", h, h)
	}
	return text
}

// A node alone gets a certificate by http-01 although the CA's nonces often fail; before it
// has one it serves by http, and afterwards it renews on demand and keeps all over a kill.
func TestACMEOfANodeAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	t.Parallel()
	clear, secure := freeport.Take(t, 1), freeport.Take(t, 1)
	ca := pebble.Start(t, "../..", pebble.Options{HTTPPort: clear, TLSPort: secure, Env: []string{"PEBBLE_WFE_NONCEREJECT=25"}})
	ca.Before(func(string) bool { return false }) // it is down
	p := launch(t, acmeText(ca, "challenge = \"http-01\"", clear, secure, "example.com"))
	plain, tlsAt := fmt.Sprintf("127.0.0.1:%d", clear), fmt.Sprintf("127.0.0.1:%d", secure)
	if status, _, body := inClear(t, plain, "example.com", "/"); status != 200 || body != "hello of example.com" {
		t.Errorf("without a certificate http gives %d %q", status, body)
	}
	p.eventually("it says that the CA is down", func() bool { return strings.Contains(p.log.String(), "acme: no certificate yet") })
	all, err := p.Certificates(t.Context())
	if err != nil || len(all) != 1 || all[0].ACME == nil || !all[0].ACME.Pending || all[0].ACME.Failures == 0 {
		t.Errorf("certificates without a CA: %+v, %v", all, err)
	}
	ca.Before(nil)
	roots := ca.Issuers()
	p.eventually("the certificate is served", func() bool { return served(tlsAt, "example.com", roots) != nil })
	if n := len(ca.Orders()); n != 1 {
		t.Errorf("%d orders were made, want 1", n)
	}
	if status, to, _ := inClear(t, plain, "example.com", "/a"); status != 308 || to != fmt.Sprintf("https://example.com:%d/a", secure) {
		t.Errorf("with a certificate http gives %d to %q", status, to)
	}
	if status, _, _ := inClear(t, plain, "example.com", "/.well-known/acme-challenge/none"); status != 308 {
		t.Errorf("a challenge that nobody knows gets %d", status)
	}
	first := served(tlsAt, "example.com", roots).SerialNumber

	_ = p.cmd.Process.Kill()
	<-p.done
	p.start()
	p.eventually("it is served after a kill", func() bool { return served(tlsAt, "example.com", roots) != nil })
	if got := served(tlsAt, "example.com", roots).SerialNumber; got.Cmp(first) != 0 || len(ca.Orders()) != 1 {
		t.Errorf("after a kill the certificate is %x of %d orders, want %x of 1", got, len(ca.Orders()), first)
	}
	if r, err := p.RenewCertificate(t.Context(), control.CertificateWish{Name: "Example.COM.", By: "ann"}); err != nil || r.Node != "edge-1" {
		t.Fatalf("renew = %+v, %v", r, err)
	}
	p.eventually("another certificate is served", func() bool {
		c := served(tlsAt, "example.com", roots)
		return c != nil && c.SerialNumber.Cmp(first) != 0
	})
	if n := len(ca.Orders()); n != 2 {
		t.Errorf("%d orders after one renewal, want 2", n)
	}
	p.eventually("it is counted", func() bool {
		return p.metric(`proxyd_acme_orders_total{challenge="http-01",issuer="127.0.0.1",result="ok"}`) == 1
	})
	now := served(tlsAt, "example.com", roots)
	if end := p.metric(fmt.Sprintf(`proxyd_tls_certificate_not_after_timestamp_seconds{serial="%x",source="acme",subject="example.com"}`, now.SerialNumber)); end != float64(now.NotAfter.Unix()) {
		t.Errorf("its end is told to be %v, want %v", end, now.NotAfter)
	}
	if _, err := p.RenewCertificate(t.Context(), control.CertificateWish{Name: "example.org"}); err == nil || !strings.Contains(err.Error(), "example.com") {
		t.Errorf("renewal of another name = %v", err)
	}
	secretOnDisk(t, p)
}

// secretOnDisk looks at what a node keeps of ACME: for nobody else, and no key in clear.
func secretOnDisk(t *testing.T, p *program) {
	t.Helper()
	dir := filepath.Join(p.dir, "state", "acme")
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "state.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", info, err)
	}
	if len(text) < 1000 || strings.Contains(string(text), "PRIVATE KEY") || strings.Contains(string(text), "example.com") {
		t.Errorf("what is kept is not sealed:\n%.2000s", text)
	}
}

// What a disk does not take, such as a full one, holds for this life: a key made anew each time
// would open nothing of what the one before has sealed. It is kept when there is room again.
func TestAKeyThatCannotBeKeptHolds(t *testing.T) {
	dir := t.TempDir()
	s := &acmeShelf{node: &node{shared: newShared("edge-1"), log: slog.New(slog.DiscardHandler)}, dir: filepath.Join(dir, "acme")}
	if err := os.Symlink(filepath.Join(dir, "later", "acme"), s.dir); err != nil { // into nothing
		t.Fatal(err)
	}
	if key, err := s.localKey(false); key != "" || err != nil {
		t.Errorf("where none is wanted there is %q, %v", key, err)
	}
	key, err := s.localKey(true)
	if key == "" || err == nil || s.keepKey() == nil {
		t.Fatalf("without room: %q, %v", key, err)
	}
	if again, err := s.localKey(true); again != key || err != nil {
		t.Errorf("the next time it is %q (%v), was %q", again, err, key)
	}
	if s.save(); s.behind() == nil {
		t.Error("that the records are not kept is not known")
	}
	if err := os.MkdirAll(filepath.Join(dir, "later", "acme"), 0o755); err != nil {
		t.Fatal(err)
	}
	if s.save(); s.behind() != nil {
		t.Fatal(s.behind())
	}
	if kept, err := (&acmeShelf{dir: s.dir}).localKey(false); kept != key || err != nil {
		t.Errorf("the next life has %q (%v), want %q", kept, err, key)
	}
	for name, want := range map[string]os.FileMode{s.dir: 0o700, s.key(): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

// launchACME runs a cluster whose nodes have the same ports each at an address of its own,
// and a CA that finds them by DNS.
func launchACME(t *testing.T, n int, more string, hosts ...string) (*pebble.CA, []*program, func(i int) string) {
	t.Helper()
	if testing.Short() {
		t.Skip("end to end")
	}
	t.Parallel()
	clear, secure := freeport.Take(t, 1), freeport.Take(t, 1)
	ca := pebble.Start(t, "../..", pebble.Options{HTTPPort: clear, TLSPort: secure, IP: "127.0.0.11"})
	join, keys := clusterAddrs(t, n), t.TempDir()
	var all []*program
	for i := range n {
		dir := t.TempDir()
		p := &program{t: t, dir: dir, file: filepath.Join(dir, "proxyd.toml"), name: fmt.Sprintf("edge-%d", i+1), above: clusterHead(t, keys, join, i)}
		p.write(strings.ReplaceAll(acmeText(ca, more, clear, secure, hosts...), `"127.0.0.1:`, fmt.Sprintf(`"127.0.0.%d:`, 11+i)))
		p.start()
		t.Cleanup(func() {
			p.stop()
			if t.Failed() {
				t.Logf("edge-%d said:\n%s", i+1, p.log)
			}
		})
		all = append(all, p)
	}
	return ca, all, func(i int) string { return fmt.Sprintf("127.0.0.%d:%d", 11+i, secure) }
}

// everywhere waits until every living node serves one and the same certificate for a name.
func everywhere(t *testing.T, ca *pebble.CA, all []*program, at func(int) string, name string, dead ...int) *x509.Certificate {
	t.Helper()
	roots := ca.Issuers()
	var one *x509.Certificate
	all[0].eventually("every node serves the certificate for "+name, func() bool {
		one = nil
		for i := range all {
			if len(dead) > 0 && dead[0] == i {
				continue
			}
			c := served(at(i), name, roots)
			if c == nil || one != nil && one.SerialNumber.Cmp(c.SerialNumber) != 0 {
				return false
			}
			one = c
		}
		return true
	})
	return one
}

// issuer returns the node that orders.
func issuer(all []*program) int {
	for i, p := range all {
		if strings.Contains(p.log.String(), "acme: a certificate is ordered") || strings.Contains(p.log.String(), "acme: an order goes on") {
			return i
		}
	}
	return -1
}

// Whichever node the CA asks answers, by http-01 and by tls-alpn-01; all serve what one
// ordered, once for each name, and it outlives a rotation of the cluster's keys and a kill.
func TestACMEOfACluster(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			ca, all, at := launchACME(t, 3, fmt.Sprintf("challenge = %q", challenge), "one.example.com", "two.example.com", "three.example.com")
			for i, name := range []string{"one", "two", "three"} { // the issuer is one of the three that are asked
				ca.Resolve(name+".example.com", fmt.Sprintf("127.0.0.%d", 11+i))
			}
			for _, name := range []string{"one", "two", "three"} {
				everywhere(t, ca, all, at, name+".example.com")
			}
			if n := len(ca.Orders()); n != 3 {
				t.Errorf("%d orders for three names", n)
			}
			if challenge != "http-01" {
				return
			}
			first := everywhere(t, ca, all, at, "one.example.com")
			if _, err := all[1].RotateKeys(t.Context(), control.KeysWish{By: "ann"}); err != nil {
				t.Fatal(err)
			}
			for _, p := range all {
				_ = p.cmd.Process.Kill()
				<-p.done
			}
			for _, p := range all {
				p.start()
			}
			if c := everywhere(t, ca, all, at, "one.example.com"); c.SerialNumber.Cmp(first.SerialNumber) != 0 || len(ca.Orders()) != 3 {
				t.Errorf("after new keys and a kill of all, certificate %x of %d orders; want %x of 3", c.SerialNumber, len(ca.Orders()), first.SerialNumber)
			}
			// Any node is asked to renew, and the one that orders does.
			if _, err := all[2].RenewCertificate(t.Context(), control.CertificateWish{Name: "one.example.com", By: "ann"}); err != nil {
				all[2].eventually("it can be renewed", func() bool {
					_, err := all[2].RenewCertificate(t.Context(), control.CertificateWish{Name: "one.example.com", By: "ann"})
					return err == nil
				})
			}
			all[0].eventually("it is renewed", func() bool {
				c := served(at(0), "one.example.com", ca.Issuers())
				return c != nil && c.SerialNumber.Cmp(first.SerialNumber) != 0
			})
			everywhere(t, ca, all, at, "one.example.com")
			if n := len(ca.Orders()); n != 4 {
				t.Errorf("%d orders after one renewal", n)
			}
		})
	}
}

// The node that orders is killed at each step of an order; another one goes on with the same
// order, and there is never a second one.
func TestAnOrderOutlivesItsNode(t *testing.T) {
	for _, step := range []string{"/sign-me-up", "/order-plz", "/authZ/", "/chalZ/", "/finalize-order/", "/certZ/"} {
		t.Run(strings.Trim(step, "/"), func(t *testing.T) {
			ca, all, at := launchACME(t, 3, "challenge = \"http-01\"", "example.com")
			killed := make(chan int, 1)
			ca.After(func(path string) { // the CA has done it, and nobody will hear of it
				if !strings.HasPrefix(path, step) || len(killed) > 0 {
					return
				}
				i := issuer(all)
				_ = all[i].cmd.Process.Kill()
				<-all[i].done
				killed <- i
			})
			ca.Resolve("example.com", "127.0.0.13") // the first of the three orders first
			dead := <-killed
			ca.After(nil)
			alive := append(append([]*program{}, all[:dead]...), all[dead+1:]...)
			alive[0].eventually("another node has it", func() bool { return issuer(alive) >= 0 })
			everywhere(t, ca, all, at, "example.com", dead)
			if n := len(ca.Orders()); n != 1 {
				t.Errorf("%d orders for one name: %v", n, ca.Orders())
			}
			all[dead].start()
			everywhere(t, ca, all, at, "example.com") // who was away learns it
			if n := len(ca.Orders()); n != 1 {
				t.Errorf("%d orders for one name", n)
			}
		})
	}
}

// asHook makes this test binary a hook of acme.dns, for the DNS server with that address.
const asHook = "PROXYD_TEST_AS_HOOK"

// hook is a program that makes TXT records in the DNS server of the test CA.
func hook(to string, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("arguments %q", args)
	}
	path, body := "/set-txt", fmt.Sprintf(`{"host":"%s.","value":%q}`, args[1], args[2])
	if args[0] == "cleanup" {
		path, body = "/clear-txt", fmt.Sprintf(`{"host":"%s."}`, args[1])
	}
	r, err := http.Post(to+path, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != 200 {
		return fmt.Errorf("HTTP %d", r.StatusCode)
	}
	return nil
}

// A wildcard comes by a hook, of a CA that wants an account of its own; what operators see of
// it is what there is.
func TestACMEWildcardByAHook(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	t.Parallel()
	const kid, mac = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	clear, secure := freeport.Take(t, 1), freeport.Take(t, 1)
	ca := pebble.Start(t, "../..", pebble.Options{HTTPPort: clear, TLSPort: secure, EAB: map[string]string{kid: mac}})
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"hook":    fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", asHook, ca.DNSManagement(), self),
		"eab.key": mac + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "eab.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("hosts = [\"*.example.com\", \"shop.blocked.example\"]\ndns = { command = %q }\neab = { id = %q, key = %q }", filepath.Join(dir, "hook"), kid, "file:"+filepath.Join(dir, "eab.key"))
	cert, key := certificate(t, dir, "file.example.org", 1)
	p := launch(t, acmeText(ca, more, clear, secure, "*.example.com")+fmt.Sprintf("[[cert]]\ncert = %q\nkey = %q\n", cert, key))
	tlsAt := fmt.Sprintf("127.0.0.1:%d", secure)
	p.eventually("the wildcard is served", func() bool { return served(tlsAt, "a.example.com", ca.Issuers()) != nil })
	p.eventually("the other name is refused", func() bool { return strings.Contains(p.log.String(), "rejectedIdentifier") })
	hactl := p.hactl()
	out, stderr, _ := hactl("cert", "ls")
	want(t, "cert ls"+stderr, out, "*.example.com", "acme", "failed in a row", "rejectedIdentifier")
	out, _, _ = hactl("explain", "GET", "https://a.example.com/")
	want(t, "explain", out, "*.example.com (acme, Pebble")
	out, _, _ = hactl("doctor")
	want(t, "doctor", out, "shop.blocked.example", "clients have http alone")
	p.eventually("the history has both", func() bool {
		out, _, _ := hactl("history")
		return strings.Contains(out, "certificate (issued): *.example.com") && strings.Contains(out, "certificate (failed): shop.blocked.example")
	})
	out, _, code := hactl("cert", "renew", "shop.blocked.example")
	want(t, "cert renew", out, "edge-1 orders a certificate for shop.blocked.example")
	if _, stderr, bad := hactl("cert", "renew", "example.org"); code != 0 || bad == 0 || !strings.Contains(stderr, "shop.blocked.example") {
		t.Errorf("cert renew: exit codes %d and %d: %s", code, bad, stderr)
	}
	if _, stderr, _ := hactl("cert", "renew", "file.example.org"); !strings.Contains(stderr, cert) {
		t.Errorf("cert renew of a certificate that is in a file: %s", stderr)
	}
	if n := p.metric(`proxyd_acme_orders_total{challenge="dns-01",issuer="127.0.0.1",result="ok"}`); n != 1 {
		t.Errorf("orders by dns-01: %v", n)
	}
	first := served(tlsAt, "a.example.com", ca.Issuers()).SerialNumber
	for range 2 { // which is one order
		if out, stderr, code := hactl("cert", "renew", "*.example.com"); code != 0 {
			t.Errorf("cert renew of a wildcard: %s%s", out, stderr)
		}
	}
	p.eventually("the wildcard is renewed", func() bool {
		c := served(tlsAt, "a.example.com", ca.Issuers())
		return c != nil && c.SerialNumber.Cmp(first) != 0
	})
	if n := len(ca.Orders()); n != 2 {
		t.Errorf("%d orders for the wildcard, want 2", n)
	}
}
