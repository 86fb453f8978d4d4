package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A failover keeps every client's server: what hash and sticky choose is the same on
// every node, whatever the order of the servers in its file.
func TestClientsKeepTheirServersOnAnotherNode(t *testing.T) {
	conf := func(balance string, turned bool) *config.Config {
		c := base()
		c.Cluster.Secret = "a secret of the cluster"
		c.Node.State = t.TempDir()
		c.Pool["app"] = pool("app", "192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "192.0.2.4:80", "192.0.2.5:80")
		c.Pool["app"].Balance = balance
		if balance != "hash" {
			c.Pool["app"].Sticky = &config.Sticky{Cookie: "srv", TTL: time.Hour}
		}
		if turned {
			slices.Reverse(c.Pool["app"].Server)
		}
		return c
	}
	for _, balance := range []string{"hash", "round_robin"} {
		here, _ := start(t, conf(balance, false))
		there, _ := start(t, conf(balance, true))
		servers := make([]string, 1000)
		cookies := make([]string, 1000)
		ask := func(p *Plane, i int) string {
			x := get("h", "/")
			if cookies[i] != "" {
				x = with(x, "Cookie: "+cookies[i])
			}
			x.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1234)
			begin(p, x)
			respond(p, x, 200)
			for _, f := range header(x.Response.Header) {
				if value, found := strings.CutPrefix(f, "Set-Cookie: "); found {
					if cookies[i] != "" {
						t.Errorf("client %d has been given another cookie", i)
					}
					cookies[i], _, _ = strings.Cut(value, ";")
				}
			}
			name := x.Server.Name
			p.End(x, nil)
			return name
		}
		for i := range servers {
			servers[i] = ask(here, i)
		}
		if err := here.Apply(conf(balance, true)); err != nil {
			t.Fatal(err)
		}
		for i := range servers {
			if got := ask(there, i); got != servers[i] {
				t.Fatalf("%s: client %d of %s goes to %s on the other node", balance, i, servers[i], got)
			}
			if got := ask(here, i); got != servers[i] {
				t.Fatalf("%s: client %d of %s goes to %s after a reload", balance, i, servers[i], got)
			}
		}
	}
}

func TestTheKeyOfANodeAloneSurvivesARestart(t *testing.T) {
	c := base()
	c.Node.State = filepath.Join(t.TempDir(), "state")
	c.Pool["app"].Sticky = &config.Sticky{Cookie: "srv"}
	p, _ := start(t, c)
	again, _ := start(t, c)
	one, err := p.cookieKey(c)
	if err != nil {
		t.Fatal(err)
	}
	two, _ := again.cookieKey(c)
	if len(one) != cookieKeyBytes || !slices.Equal(one, two) {
		t.Errorf("keys %x and %x", one, two)
	}
	if info, err := os.Stat(filepath.Join(c.Node.State, cookieKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAnExchangeWaitsForAPlaceAndIsPreparedOnce(t *testing.T) {
	c := base()
	c.Pool["app"] = pool("app", "192.0.2.1:80")
	c.Pool["app"].MaxConns, c.Pool["app"].Queue = 1, &config.Queue{Size: 1, Wait: time.Minute}
	p, _ := start(t, c)
	first := get("h", "/")
	begin(p, first)
	x := with(get("h", "/"), "X-Forwarded-For: 1.2.3.4")
	resumed := 0
	x.Resume = func() { resumed++ }
	if v := begin(p, x); v != dataplane.Wait {
		t.Fatalf("Begin = %v, want Wait", v)
	}
	if v := p.Begin(x); v != dataplane.Wait { // Resume in vain
		t.Fatalf("Begin = %v, want Wait", v)
	}
	third := get("h", "/")
	if v := begin(p, third); v != dataplane.Answer || third.Response.Status != 503 || third.Mark.Reason != "queue_full" || !slices.Contains(header(third.Response.Header), "Retry-After: 60") {
		t.Errorf("a third: %v %d %s %q", v, third.Response.Status, third.Mark.Reason, header(third.Response.Header))
	}
	p.End(third, nil)
	wantSeries(t, gather(t, p), map[string]float64{`proxyd_upstream_queue_length{pool="app"}`: 1})
	respond(p, first, 200)
	p.End(first, nil)
	if v := p.Begin(x); v != dataplane.Next || resumed != 1 || x.Attempt != 1 {
		t.Fatalf("Begin = %v after Resume (%d times)", v, resumed)
	}
	for _, name := range []string{"X-Forwarded-For", "Via", "Host"} {
		n := 0
		for _, f := range header(x.Request.Header) {
			if strings.HasPrefix(f, name+": ") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d fields %s in %q", n, name, header(x.Request.Header))
		}
	}
	p.End(x, nil)
	if n := x.Mark.Pick; n != nil {
		t.Errorf("still holds %v", n)
	}
}

func TestAClientThatLeavesGivesUpItsPlace(t *testing.T) {
	c := base()
	c.Pool["app"] = pool("app", "192.0.2.1:80")
	c.Pool["app"].MaxConns, c.Pool["app"].Queue = 1, &config.Queue{Size: 5, Wait: time.Minute}
	p, _ := start(t, c)
	first, x := get("h", "/"), get("h", "/")
	begin(p, first)
	x.Resume = func() {}
	begin(p, x)
	p.End(x, fmt.Errorf("%w: reset", dataplane.ErrClientGone))
	respond(p, first, 200)
	p.End(first, nil)
	if v := p.Pools()[0]; v.Waiting != 0 || v.Servers[0].Active != 0 {
		t.Errorf("%d wait, %d at the server", v.Waiting, v.Servers[0].Active)
	}
}
