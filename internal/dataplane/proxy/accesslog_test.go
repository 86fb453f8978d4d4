package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func TestALogLineSaysWhatHappened(t *testing.T) {
	log := &lines{}
	now := time.Date(2026, 11, 24, 12, 0, 0, 123456000, time.UTC)
	p := New(Options{Engine: stillEngine{}, AccessLog: log, Now: func() time.Time { return now }})
	if err := p.Apply(base()); err != nil {
		t.Fatal(err)
	}
	x := with(get("shop.example.com", "/a\"b"), "User-Agent: curl\t\x01", "Referer: http://é\xff/")
	x.ConnID, x.Bytes = 7, dataplane.Bytes{In: 100, Out: 2000}
	x.Times = dataplane.Times{Start: now.Add(-time.Second - 500*time.Microsecond), Head: now.Add(-time.Second)}
	begin(p, x)
	x.Times.Dial = 2 * time.Millisecond
	x.Times.Sent, x.Times.FirstByte = now.Add(-997*time.Millisecond), now.Add(-500*time.Millisecond)
	x.Response.Status = 200
	p.Respond(x)
	p.End(x, nil)
	p.Shutdown(context.Background())

	var got map[string]any
	if err := json.Unmarshal([]byte(log.String()), &got); err != nil {
		t.Fatalf("%v: %s", err, log)
	}
	want := map[string]any{
		"ts": "2026-11-24T12:00:00.123456Z", "node": "edge-1", "listener": "web", "client": "198.51.100.9", "proto": "HTTP/1.1",
		"method": "GET", "host": "shop.example.com", "path": `/a"b`, "status": 200.0, "route": "all", "pool": "app", "server": "192.0.2.1:80",
		"tries": 1.0, "bytes_in": 100.0, "bytes_out": 2000.0, "t_total": 1.0005, "t_wait": 0.001, "t_connect": 0.002, "t_ttfb": 0.497,
		"ua": "curl\t\x01", "referer": "http://é\ufffd/", "conn_id": 7.0, "config": 1.0,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestARefusedRequestIsLoggedAndCounted(t *testing.T) { // B10
	p, log := start(t, base())
	l := &dataplane.Listener{Name: "web"}
	p.Refused(l, netip.MustParseAddrPort("[::ffff:198.51.100.9]:1"), &dataplane.Malformed{Status: 400, Reason: "cl_te", Detail: "x\n\""})
	p.Refused(l, netip.MustParseAddrPort("198.51.100.9:1"), errors.New("reset by peer"))
	p.Shutdown(context.Background())
	var got map[string]any
	if err := json.Unmarshal([]byte(log.String()), &got); err != nil {
		t.Fatalf("%v: %s", err, log)
	}
	if got["status"] != 400.0 || got["reason"] != "cl_te" || got["client"] != "198.51.100.9" || got["detail"] != "x\n\"" {
		t.Errorf("logged %v", got)
	}
}

func TestRoutesAndNodesCanBeSilent(t *testing.T) {
	for _, c := range []struct {
		why    string
		change func(*config.Config)
	}{
		{"route", func(c *config.Config) { c.Route[0].Log = false }},
		{"access = false", func(c *config.Config) { c.Log.Access.Off = true }},
	} {
		conf := base()
		c.change(conf)
		p, log := start(t, conf)
		x := get("h", "/")
		begin(p, x)
		p.End(x, nil)
		p.Shutdown(context.Background())
		if log.String() != "" {
			t.Errorf("%s: logged %s", c.why, log)
		}
	}
}

func TestAReloadOpensTheLogFileAgain(t *testing.T) {
	dir := t.TempDir()
	conf := base()
	conf.Log.Access.Output = filepath.Join(dir, "access.log")
	p, _ := start(t, conf)
	once := func() {
		x := get("h", "/")
		begin(p, x)
		p.End(x, nil)
	}
	once()
	if err := os.Rename(conf.Log.Access.Output, filepath.Join(dir, "old.log")); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(conf); err != nil {
		t.Fatal(err)
	}
	once()
	once()
	p.Shutdown(context.Background())
	for name, want := range map[string]int{"old.log": 1, "access.log": 2} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(b), "\n"); got != want {
			t.Errorf("%s has %d lines, want %d", name, got, want)
		}
	}
	conf = base()
	conf.Log.Access.Output = filepath.Join(dir, "missing", "access.log")
	q := New(Options{Engine: stillEngine{}})
	defer q.Shutdown(context.Background())
	if err := q.Apply(conf); err == nil || !strings.Contains(err.Error(), "access log") {
		t.Errorf("Apply = %v, want an error that names the access log", err)
	}
}

// A stuck writer takes nothing until it is let go.
type stuck struct{ free chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	<-s.free
	return len(b), nil
}

func TestASlowLogDropsLinesAndHoldsNobodyUp(t *testing.T) {
	out := stuck{make(chan struct{})}
	p := New(Options{Engine: stillEngine{}, AccessLog: out})
	if err := p.Apply(base()); err != nil {
		t.Fatal(err)
	}
	for range 4 << 20 / 200 {
		x := get("h", "/")
		begin(p, x)
		p.End(x, nil)
	}
	if p.access.Dropped.Load() == 0 {
		t.Error("nothing was dropped")
	}
	close(out.free)
	p.Shutdown(context.Background())
}
