package proxy

import (
	"fmt"
	"net/netip"
	"testing"

	"proxyd/internal/dataplane"
)

func TestConnectionLimits(t *testing.T) { // E9
	conf := base()
	conf.Limits.Conns, conf.Limits.ConnsPerIP = 5, 2
	conf.Node.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	p, _ := start(t, conf)
	l := &dataplane.Listener{Name: "web", Address: "192.0.2.200:80"}
	from := func(addr string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(addr), 1) }
	for i, c := range []struct {
		addr  string
		leave bool
		want  bool
	}{
		{"198.51.100.9", false, true},
		{"::ffff:198.51.100.9", false, true},
		{"198.51.100.9", false, false}, // its third
		{"198.51.100.9", true, true},
		{"198.51.100.9", false, true}, // one has left
		{"2001:db8::1", false, true},
		{"2001:db8::2", false, true},
		{"2001:db8::3", false, false}, // the third of one /64
		{"2001:db8:0:1::1", false, true},
		{"203.0.113.1", false, false}, // the sixth of all
		{"2001:db8::1", true, true},
		{"203.0.113.1", false, true},
	} {
		if c.leave {
			p.Leave(l, from(c.addr), dataplane.ClosedClient)
			continue
		}
		if got := p.Admit(l, from(c.addr)); got != c.want {
			t.Errorf("step %d: Admit(%s) = %v, want %v", i, c.addr, got, c.want)
		}
	}
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_connections_open{listener="web",protocol="http1"}`:        5,
		`proxyd_connections_total{listener="web",protocol="http1"}`:       7,
		`proxyd_connections_closed_total{listener="web",reason="limit"}`:  3,
		`proxyd_connections_closed_total{listener="web",reason="client"}`: 2,
	})
}

func TestATrustedProxyHasNoLimitOfItsOwn(t *testing.T) {
	conf := base()
	conf.Limits.ConnsPerIP = 1
	conf.Node.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	p, _ := start(t, conf)
	l := &dataplane.Listener{Name: "web"}
	for range 50 {
		if !p.Admit(l, netip.MustParseAddrPort("10.1.2.3:1")) {
			t.Fatal("refused")
		}
	}
}

func TestTheTableOfAddressesShrinks(t *testing.T) { // E4
	p, _ := start(t, base())
	l := &dataplane.Listener{Name: "web"}
	for i := range 1000 {
		a := netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:1", i/256, i%256))
		if !p.Admit(l, a) {
			t.Fatalf("refused connection %d", i)
		}
		p.Leave(l, a, dataplane.ClosedClient)
	}
	for i := range p.conns.shards {
		if n := len(p.conns.shards[i].count); n != 0 {
			t.Errorf("shard %d still has %d addresses", i, n)
		}
	}
}
