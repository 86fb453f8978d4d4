package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"proxyd/internal/acme"
)

const (
	bindKey    = "c2VjcmV0IG9mIHRoZSBkbnM="
	bindConfig = `options {
	directory %[1]q;
	pid-file none;
	session-keyfile none;
	listen-on port %[2]d { 127.0.0.1; };
	listen-on-v6 { none; };
	recursion no;
	dnssec-validation no;
	notify no;
};
controls { };
key "acme" { algorithm hmac-sha256; secret %[3]q; };
zone "example.com" {
	type primary;
	file "example.com.zone";
	update-policy { grant acme subdomain _acme-challenge.example.com. TXT; };
};
`
	bindZone = `$TTL 60
@ SOA ns ops 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
www A 192.0.2.1
`
)

// startBIND runs Debian's BIND as a primary of example.com that takes updates of the key acme.
func startBIND(t *testing.T) (at string) {
	t.Helper()
	if testing.Short() {
		t.Skip("end to end")
	}
	if _, err := exec.LookPath("named"); err != nil {
		if err := Install(t.Context(), []string{"bind9"}, os.Stderr); err != nil {
			t.Fatal(err)
		}
	}
	free, err := freeAddresses(1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "named.conf")
	_, port, _ := net.SplitHostPort(free[0])
	var n int
	if _, err := fmt.Sscan(port, &n); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{conf: fmt.Sprintf(bindConfig, dir, n, bindKey), filepath.Join(dir, "example.com.zone"): bindZone} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "log")
	p, _, err := start(command{name: "named", argv: []string{"named", "-g", "-n", "1", "-c", conf}, log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	eventually(t, "BIND to answer for example.com", func() bool {
		if !p.Alive() {
			text, _ := os.ReadFile(log)
			t.Fatalf("BIND has ended: %s", text)
		}
		_, err := bindTXT(t.Context(), free[0], "example.com.")
		return err == nil
	})
	return free[0]
}

// bindTXT asks for the TXT records of a name.
func bindTXT(ctx context.Context, at, name string) (all []string, err error) {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeTXT)
	c := &dns.Client{Net: "tcp", Timeout: time.Second}
	r, _, err := c.ExchangeContext(ctx, m, at)
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("%s", dns.RcodeToString[r.Rcode])
	}
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			all = append(all, txt.Txt...)
		}
	}
	return all, nil
}

// TestBINDTakesUpdates: dns-01 by RFC 2136 with TSIG, against a name server that others wrote.
func TestBINDTakesUpdates(t *testing.T) {
	at := startBIND(t)
	u := &acme.Update{Server: at, Algorithm: "hmac-sha256", Name: "acme", Secret: bindKey}
	const name = "_acme-challenge.example.com"
	want := func(n int) {
		t.Helper()
		if got, err := bindTXT(t.Context(), at, name+"."); err != nil || len(got) != n {
			t.Fatalf("%d records, %v; want %d", len(got), err, n)
		}
	}
	// A wildcard and its domain prove themselves at one name, with a value each.
	for i, value := range []string{"one", "two", "two"} {
		if err := u.Present(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
		want(min(i+1, 2))
	}
	for what, bad := range map[string]*acme.Update{
		"another secret":    {Server: at, Algorithm: "hmac-sha256", Name: "acme", Secret: "b3RoZXI="},
		"a key unknown":     {Server: at, Algorithm: "hmac-sha256", Name: "other", Secret: bindKey},
		"another algorithm": {Server: at, Algorithm: "hmac-sha512", Name: "acme", Secret: bindKey},
		"no signature":      {Server: at},
	} {
		err := bad.Present(t.Context(), name, "three")
		if err == nil {
			t.Errorf("%s is taken", what)
		}
		t.Logf("%s: %v", what, err)
	}
	if err := u.Present(t.Context(), "www.example.com", "four"); err == nil {
		t.Error("a name that the key may not change is changed")
	}
	want(2)
	for i, value := range []string{"one", "two", "two"} {
		if err := u.Remove(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
		want(max(1-i, 0))
	}
}
