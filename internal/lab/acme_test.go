package lab

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"proxyd/internal/lab/pebble"
)

// acmeStage is the network of docs/examples/pair.toml, with a CA beside it.
func acmeStage(t *testing.T, p Plan) (*Stage, *Host) {
	t.Helper()
	s := &Stage{lab: p.Lab}
	t.Cleanup(s.Close)
	var err error
	if s.dir, err = newRunDir(); err != nil {
		t.Fatal(err)
	}
	if s.lan, err = newLAN(); err != nil {
		t.Fatal(err)
	}
	host := func(name string, addrs ...string) *Host {
		var all []netip.Prefix
		for _, a := range addrs {
			all = append(all, netip.MustParsePrefix(a+"/24"))
		}
		h, err := newHost(s.lan, name, all...)
		if err != nil {
			t.Fatal(err)
		}
		s.hosts = append(s.hosts, h)
		return h
	}
	for i, name := range []string{"web-1", "web-2"} {
		h := host(name, fmt.Sprintf("10.0.1.%d", 5+i))
		if err := s.serve(h); err != nil {
			t.Fatal(err)
		}
	}
	ca := host("ca", "203.0.113.50", "10.0.0.50")
	for i, name := range []string{"edge-1", "edge-2"} {
		h := host(name, fmt.Sprintf("10.0.0.%d", 11+i), fmt.Sprintf("203.0.113.%d", 11+i), fmt.Sprintf("10.0.1.%d", 11+i))
		n, err := newNode(h, p.Proxyd, s.dir.file(name), "")
		if err != nil {
			t.Fatal(err)
		}
		s.Nodes = append(s.Nodes, n)
	}
	return s, ca
}

// TestThePairExampleGetsHTTPS: docs/examples/pair.toml and two lines for the CA are https for
// example.com on two nodes with a VIP; the CA asks at the VIP, and the holder dies with an
// order of which it never heard.
func TestThePairExampleGetsHTTPS(t *testing.T) {
	s, host := acmeStage(t, pairPlan(t))
	ca := pebble.Start(t, "../..", pebble.Options{HTTPPort: 80, TLSPort: 443, IP: "203.0.113.10", Listen: "203.0.113.50", Do: host.Do})
	text, err := os.ReadFile("../../docs/examples/pair.toml")
	if err != nil {
		t.Fatal(err)
	}
	key := s.dir.file("cluster.key")
	if err := os.WriteFile(key, []byte("a key for one run of the lab 0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		dir := filepath.Dir(n.Config)
		own := fmt.Sprintf("node.name = %q\nnode.state = %q\nadmin.socket = %q\nlog.access = false\n", n.Name, filepath.Join(dir, "state"), n.Socket)
		more := fmt.Sprintf("acme.directory = %q\nacme.ca = %q\n", ca.Directory, ca.RootsFile)
		pair := strings.ReplaceAll(string(text), "/etc/proxyd/cluster.key", key)
		if err := os.WriteFile(n.Config, []byte(own+more+pair), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range s.Nodes {
				t.Logf("%s: %s", n.Name, tail(n.Log, 60))
			}
		}
	})
	var once sync.Once
	died := make(chan *Node, 1)
	ca.After(func(path string) {
		if path == "/order-plz" {
			once.Do(func() {
				holder := s.Holder(t.Context())
				_ = holder.Kill()
				died <- holder
			})
		}
	})
	for _, n := range s.Nodes {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	var dead *Node
	select {
	case dead = <-died:
	case <-time.After(time.Minute):
		t.Fatal("nobody orders")
	}
	roots := ca.Issuers()
	serial := func(at string) string { return serialAt(host, at, roots) }
	eventually(t, "https on the VIP by the survivor", func() bool { return serial("203.0.113.10:443") != "" })
	if n := len(ca.Orders()); n != 1 {
		t.Errorf("%d orders for one name", n)
	}
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the same certificate on both nodes", func() bool {
		one, two := serial("203.0.113.11:443"), serial("203.0.113.12:443")
		return one != "" && one == two
	})
	if n := len(ca.Orders()); n != 1 {
		t.Errorf("%d orders for one name", n)
	}
}

// serialAt returns the serial of the certificate for example.com at an address, by roots, as
// a host sees it; "" if there is none.
func serialAt(h *Host, at string, roots *x509.CertPool) string {
	c, err := h.Dial(netip.MustParseAddrPort(at), time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	s := tls.Client(c, &tls.Config{ServerName: "example.com", RootCAs: roots})
	if s.Handshake() != nil {
		return ""
	}
	return s.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// eventually waits for a state of other processes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
