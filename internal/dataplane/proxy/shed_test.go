package proxy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// saturate has p's gate believe that requests lie unread for a second, with n under way.
func saturate(p *Plane, n int) {
	saturateAt(p, time.Now(), n)
}

func saturateAt(p *Plane, now time.Time, n int) {
	for i := range 1000 {
		entered := p.gate.Enter(now.Add(time.Duration(i)*time.Millisecond), func() time.Duration { return time.Second }, false)
		if entered && i >= n {
			p.gate.Leave()
		}
	}
}

func TestASaturatedNodeShedsWithRetryAfter(t *testing.T) { // issue 3, overload
	p, _ := start(t, base())
	saturate(p, 100)
	if !p.gate.Shut(time.Now()) {
		t.Fatal("the gate is open")
	}
	x := get("h", "/")
	x.Lag = func() time.Duration { return time.Second }
	resumed := make(chan time.Time, 1)
	x.Resume = func() { resumed <- time.Now() }
	begun := time.Now()
	if v := begin(p, x); v != dataplane.Wait {
		t.Fatalf("Begin = %v, want Wait: who is refused at once asks again at once", v)
	}
	if waited := (<-resumed).Sub(begun); waited < 100*time.Millisecond || waited > 6*time.Second {
		t.Errorf("the refusal waited %v", waited)
	}
	if v := p.Begin(x); v != dataplane.Answer || x.Response.Status != 503 || x.Mark.Reason != "shed" || x.Server != nil {
		t.Fatalf("Begin = %v, %d %q", v, x.Response.Status, x.Mark.Reason)
	}
	if !slices.Contains(header(x.Response.Header), "Retry-After: 1") {
		t.Errorf("header %q", header(x.Response.Header))
	}
	p.End(x, nil)
	if l := p.Load(); !l.Shedding || l.Waiting != 0 || l.Refused == 0 {
		t.Errorf("Load = %+v", l)
	}
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_http_local_responses_total{code="503",reason="shed",route="all"}`: 1,
		`proxyd_overload_shedding`:         1,
		`proxyd_overload_refusals_waiting`: 0,
	})
}

func TestWhatIsAnsweredHereIsNeverShed(t *testing.T) {
	c := base()
	c.Route = append(c.Route, &config.Route{Name: "health", Path: "/health", Respond: &config.Respond{Status: 200, Body: "OK"}})
	p, _ := start(t, c)
	saturate(p, 100)
	x := get("h", "/health")
	if v := begin(p, x); v != dataplane.Answer || x.Response.Status != 200 {
		t.Errorf("/health: %v, %d", v, x.Response.Status)
	}
	p.End(x, nil)

	x = get("probe", "*")
	x.Request.Method = dataplane.OPTIONS
	p.probing.Add(1)
	p.probes.Store(unmapped(x.Client), true)
	if v := begin(p, x); v != dataplane.Answer || x.Response.Status != 200 {
		t.Errorf("the node's own probe: %v, %d", v, x.Response.Status)
	}
	p.End(x, nil)
}

func TestEveryEndGivesThePlaceBack(t *testing.T) {
	p, _ := start(t, base())
	for i := range 1000 {
		x := get("h", "/")
		x.Client = netip.AddrPortFrom(x.Client.Addr(), uint16(i+1))
		begin(p, x)
		switch i % 4 {
		case 0:
			respond(p, x, 200)
			p.End(x, nil)
		case 1:
			p.Retry(x, dataplane.ErrClientGone)
			p.End(x, dataplane.ErrClientGone)
		case 2:
			p.Retry(x, dataplane.ErrConnect)
			respond(p, x, 200)
			p.End(x, dataplane.ErrRead)
		case 3:
			p.End(x, dataplane.ErrDrained)
		}
	}
	if n := p.gate.Inflight(); n != 0 {
		t.Errorf("%d are still under way", n)
	}
}
