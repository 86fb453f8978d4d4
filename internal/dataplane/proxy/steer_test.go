package proxy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

var (
	one = ServerName{"app", "192.0.2.1:80"}
	two = ServerName{"app", "192.0.2.2:80"}
)

// spread returns how many of n exchanges each server is given.
func spread(p *Plane, n int) map[string]int {
	got := map[string]int{}
	for range n {
		x := get("h", "/")
		if begin(p, x); x.Server != nil {
			got[x.Server.Name]++
			respond(p, x, 200)
		}
		p.End(x, nil)
	}
	return got
}

func TestOverridesStayOverReloads(t *testing.T) {
	p, _ := start(t, base())
	steer := func(o ServerOverride) {
		t.Helper()
		if err := p.Steer(Steering{Servers: map[ServerName]ServerOverride{two: o}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name     string
		override ServerOverride
		want     int // of 100 that the second server gets
		state    string
	}{
		{"weight", ServerOverride{Weight: 4}, 80, "up"},
		{"drain", ServerOverride{Mode: upstream.Drain, Weight: 4}, 0, "drain"},
		{"disable", ServerOverride{Mode: upstream.Disable}, 0, "maint"},
		{"as configured", ServerOverride{}, 50, "up"},
	} {
		steer(c.override)
		for _, when := range []string{"at once", "after a reload"} {
			if got := spread(p, 100)[two.Server]; got != c.want {
				t.Errorf("%s, %s: the server is given %d of 100, want %d", c.name, when, got, c.want)
			}
			v := p.Pools()[0].Servers[1]
			if v.State != c.state || v.Weight != max(c.override.Weight, 1) || v.Wanted != 1 {
				t.Errorf("%s, %s: shown as %+v", c.name, when, v)
			}
			if err := p.Apply(base()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDrainedServerEndsWhatItHas(t *testing.T) {
	p, _ := start(t, base())
	x := get("h", "/")
	begin(p, x)
	name := ServerName{x.Server.Pool, x.Server.Name}
	if err := p.Steer(Steering{Servers: map[ServerName]ServerOverride{name: {Mode: upstream.Drain}}}); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Active(name); n != 1 || err != nil {
		t.Errorf("Active = %d, %v; want the one in progress", n, err)
	}
	if v := respond(p, x, 200); v != dataplane.Next {
		t.Errorf("Respond = %v", v)
	}
	p.End(x, nil)
	if n, _ := p.Active(name); n != 0 {
		t.Errorf("Active = %d after it ended", n)
	}
	if _, err := p.Active(ServerName{"app", "192.0.2.9:80"}); err == nil {
		t.Error("Active of a server that is not there gives no error")
	}
}

func TestMaintenanceAnswersForTheRouteAlone(t *testing.T) {
	conf := base()
	other := *conf.Route[0]
	other.Name, other.Host = "other", []string{"other.example.com"}
	conf.Route = append(conf.Route, &other)
	p, _ := start(t, conf)
	if err := p.Steer(Steering{Routes: map[string]Maintenance{"all": {Status: 503, RetryAfter: 90 * time.Second, Allow: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}}); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at once", "after a reload"} {
		x := get("h", "/")
		if v := begin(p, x); v != dataplane.Answer || x.Response.Status != 503 || !slices.Contains(header(x.Response.Header), "Retry-After: 90") {
			t.Errorf("%s: the route answers %v, %d, %q", when, v, x.Response.Status, header(x.Response.Header))
		}
		p.End(x, nil)
		x = get("other.example.com", "/")
		if v := begin(p, x); v != dataplane.Next {
			t.Errorf("%s: another route answers %v", when, v)
		}
		p.End(x, nil)
		x = get("h", "/")
		x.Client = netip.MustParseAddrPort("203.0.113.7:1000")
		if v := begin(p, x); v != dataplane.Next {
			t.Errorf("%s: a client that is allowed is answered %v", when, v)
		}
		p.End(x, nil)
		if err := p.Apply(conf); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Steer(Steering{}); err != nil {
		t.Fatal(err)
	}
	x := get("h", "/")
	if v := begin(p, x); v != dataplane.Next {
		t.Errorf("after maintenance the route answers %v", v)
	}
	p.End(x, nil)
}

func TestSteeringBeforeTheFirstConfigurationHolds(t *testing.T) {
	p := New(Options{Engine: stillEngine{}})
	defer p.Shutdown(t.Context())
	if err := p.Steer(Steering{Servers: map[ServerName]ServerOverride{one: {Mode: upstream.Disable}, {"gone", "x:1"}: {Weight: 3}}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(base()); err != nil {
		t.Fatal(err)
	}
	if got := spread(p, 10); got[one.Server] != 0 || got[two.Server] != 10 {
		t.Errorf("exchanges went to %v, want all to the second server", got)
	}
}
