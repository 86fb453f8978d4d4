package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"proxyd/internal/control"
)

func (f *fake) SteerServer(_ context.Context, w control.ServerWish) (*control.Steered, error) {
	pool, server, _ := strings.Cut(w.Server, "/")
	f.asked = fmt.Sprint("server ", w.Server)
	o := control.Override{Pool: pool, Server: server}
	if w.Mode != nil {
		f.asked += " " + *w.Mode
		o.Mode = *w.Mode
	}
	if w.Weight != nil {
		f.asked += fmt.Sprint(" ", *w.Weight)
		o.Weight = *w.Weight
	}
	if w.WaitMS > 0 {
		f.asked += fmt.Sprintf(" wait %d", w.WaitMS)
	}
	return &control.Steered{Override: o, Active: 3}, f.err
}

func (f *fake) SteerRoute(_ context.Context, w control.RouteWish) (*control.Steered, error) {
	f.asked = fmt.Sprint("route ", w.Route, " ", w.Closed, " ", w.Status, " ", w.RetryAfter, " ", w.Allow)
	return &control.Steered{Override: control.Override{Route: w.Route, Status: w.Status}}, f.err
}

func (f *fake) Pools(context.Context) ([]control.Pool, error) {
	return []control.Pool{{Name: "web", Servers: []control.Server{{Name: "10.0.0.1:80", State: "up"}}}}, nil
}

func (f *fake) Config(context.Context) (string, error) {
	return "[pool.web]\nname = \"no\"\n\n[[route]]\nname = \"example.com/api\"\npool = \"web\"\n", nil
}

func TestOverridesAreAskedFor(t *testing.T) {
	for _, c := range []struct {
		line  string
		asked string
		code  int
		says  string
	}{
		{"drain web/10.0.0.1:80", "server web/10.0.0.1:80 drain", 0, "web/10.0.0.1:80: drain, 3 exchanges in progress"},
		{"drain web/10.0.0.1:80 --wait 30s", "server web/10.0.0.1:80 drain wait 30000", 0, ""},
		{"drain web/10.0.0.1:80 --undo --wait 30s", "server web/10.0.0.1:80 serve", 0, ""},
		{"disable web/10.0.0.1:80", "server web/10.0.0.1:80 maint", 0, "maint"},
		{"enable web/10.0.0.1:80", "server web/10.0.0.1:80 serve", 0, ""},
		{"weight web/10.0.0.1:80 5", "server web/10.0.0.1:80 5", 0, "weight 5"},
		{"weight web/10.0.0.1:80 reset", "server web/10.0.0.1:80 0", 0, "as configured"},
		{"maintenance on site --allow 10.0.0.0/8,192.0.2.1", "route site true 503 300 [10.0.0.0/8 192.0.2.1/32]", 0, "route site: maintenance, status 503"},
		{"maintenance on site --status 200 --retry-after 0s", "route site true 200 0 []", 0, ""},
		{"maintenance off site", "route site false 503 300 []", 0, ""},
		{"drain edge-1", "node edge-1 drain", 0, "edge-1: drain, public handed over, 3 exchanges in progress"},
		{"drain edge-1 --wait 30s --reason kernel", "node edge-1 drain wait 30000 (kernel)", 0, ""},
		{"drain edge-1 --undo", "node edge-1 online", 0, "edge-1: online"},
		{"standby edge-1 --for 1h", "node edge-1 standby for 3600000", 0, "until 2026-11-24T13:00:00Z"},
		{"online edge-1", "node edge-1 online", 0, ""},
		{"pause --for 10m --reason kernel", "pause true 600000 (kernel)", 0, "paused"},
		{"resume", "pause false 0", 0, "running"},
		{"standby", "", exitUsage, "usage"},
		{"drain", "", exitUsage, "usage"},
		{"weight web/10.0.0.1:80 0", "", exitUsage, "1 to 1000"},
		{"weight web/10.0.0.1:80 many", "", exitUsage, "1 to 1000"},
		{"maintenance please site", "", exitUsage, "on or off"},
		{"maintenance on site --status 99", "", exitUsage, "200 to 599"},
		{"maintenance on site --allow lan", "", exitUsage, "lan"},
		{"__complete drain ", "", 0, "web/10.0.0.1:80"},
		{"__complete maintenance on ", "", 0, "example.com/api"},
	} {
		f := &fake{}
		args := strings.Fields(c.line)
		if strings.HasSuffix(c.line, " ") {
			args = append(args, "")
		}
		out, code := hactl(t, f, args...)
		if f.asked != c.asked || code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("hactl %s = code %d, asked %q, said %q; want code %d, %q and %q", c.line, code, f.asked, out, c.code, c.asked, c.says)
		}
	}
}

func TestOverridesGiveTheirExitCodes(t *testing.T) {
	for err, code := range map[error]int{
		control.Refuse("no pool has such a server"): exitRefused,
		control.TimedOut("2 exchanges are left"):    exitTimeout,
	} {
		if out, got := hactl(t, &fake{err: err}, "drain", "web/10.0.0.1:80", "--wait", "1s"); got != code || !strings.Contains(out, err.Error()) {
			t.Errorf("drain answered by %v = code %d, %q; want code %d", err, got, out, code)
		}
	}
}
