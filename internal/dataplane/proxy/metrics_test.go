package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// gather returns every series as `name{label="value",...}` with its value; a
// histogram's is its count.
func gather(t *testing.T, p *Plane) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(p)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := f.GetName()
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.Counter != nil:
				all[key] = m.Counter.GetValue()
			case m.Gauge != nil:
				all[key] = m.Gauge.GetValue()
			case m.Histogram != nil:
				all[key] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return all
}

func wantSeries(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for key, v := range want {
		if have, ok := got[key]; !ok || have != v {
			t.Errorf("%s = %v (there: %v), want %v", key, have, ok, v)
		}
	}
}

// soonSeries is wantSeries for what is counted after the client has its answer.
func soonSeries(t *testing.T, p *Plane, want map[string]float64) {
	t.Helper()
	met := func(got map[string]float64) bool {
		for key, v := range want {
			if got[key] != v {
				return false
			}
		}
		return true
	}
	got := gather(t, p)
	for end := time.Now().Add(10 * time.Second); !met(got) && time.Now().Before(end); got = gather(t, p) {
		time.Sleep(time.Millisecond)
	}
	wantSeries(t, got, want)
}

func TestSeriesAreThereFromTheStart(t *testing.T) {
	p, _ := start(t, base())
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_http_requests_total{code="200",listener="web",method="GET",route="all"}`:    0,
		`proxyd_http_request_duration_seconds{code_class="2xx",route="all"}`:                0,
		`proxyd_http_requests_inflight{route="all"}`:                                        0,
		`proxyd_http_local_responses_total{code="503",reason="no_server",route="all"}`:      0,
		`proxyd_connections_open{listener="web",protocol="http1"}`:                          0,
		`proxyd_connections_limit{listener="web",protocol="http1"}`:                         100,
		`proxyd_connections_closed_total{listener="web",reason="limit"}`:                    0,
		`proxyd_upstream_up{pool="app",server="192.0.2.1:80"}`:                              1,
		`proxyd_upstream_weight{pool="app",server="192.0.2.1:80"}`:                          1,
		`proxyd_upstream_state{pool="app",server="192.0.2.1:80",state="up"}`:                1,
		`proxyd_upstream_state{pool="app",server="192.0.2.1:80",state="down"}`:              0,
		`proxyd_upstream_requests_total{code_class="5xx",pool="app",server="192.0.2.2:80"}`: 0,
		`proxyd_upstream_connects_total{pool="app",result="ok",reused="true"}`:              0,
		`proxyd_upstream_retries_total{pool="app",result="budget_exhausted"}`:               0,
		`proxyd_upstream_checks_total{pool="app",result="failed",server="192.0.2.1:80"}`:    0,
		`proxyd_config_last_reload_successful`:                                              1,
		`proxyd_config_reloads_total{result="ok"}`:                                          1,
		`proxyd_panics_total`: 0,
		`proxyd_http_requests_total{code="200",listener="web",method="GET",route="` + unmatchedName + `"}`: 0,
	})
}

func TestWhatIsCounted(t *testing.T) {
	p, _ := start(t, base())
	x := get("h", "/")
	begin(p, x)
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_http_requests_inflight{route="all"}`:                          1,
		`proxyd_upstream_requests_inflight{pool="app",server="192.0.2.1:80"}`: 1,
	})
	p.Retry(x, dataplane.ErrConnect)
	x.Bytes = dataplane.Bytes{In: 10, Out: 20}
	x.Times.Dial = time.Millisecond
	respond(p, x, 418)
	p.End(x, nil)

	x = get("h", "/")
	x.Request.Method = dataplane.POST
	begin(p, x)
	respond(p, x, 204)
	p.End(x, nil)

	p.Refused(&dataplane.Listener{Name: "web"}, netip.AddrPort{}, &dataplane.Malformed{Status: 400, Reason: "cl_te"})
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_http_requests_total{code="other",listener="web",method="GET",route="all"}`:    1, // 418 is not registered
		`proxyd_http_requests_total{code="204",listener="web",method="POST",route="all"}`:     1,
		`proxyd_http_request_duration_seconds{code_class="4xx",route="all"}`:                  1,
		`proxyd_http_requests_inflight{route="all"}`:                                          0,
		`proxyd_http_request_bytes_total{route="all"}`:                                        10,
		`proxyd_http_response_bytes_total{route="all"}`:                                       20,
		`proxyd_http_malformed_total{listener="web",reason="cl_te"}`:                          1,
		`proxyd_upstream_requests_total{code_class="error",pool="app",server="192.0.2.1:80"}`: 1,
		`proxyd_upstream_requests_total{code_class="4xx",pool="app",server="192.0.2.2:80"}`:   1,
		`proxyd_upstream_requests_total{code_class="2xx",pool="app",server="192.0.2.1:80"}`:   1, // its turn again: the other's was the retry
		`proxyd_upstream_requests_inflight{pool="app",server="192.0.2.1:80"}`:                 0,
		`proxyd_upstream_connects_total{pool="app",result="failed",reused="false"}`:           1,
		`proxyd_upstream_connects_total{pool="app",result="ok",reused="false"}`:               1,
		`proxyd_upstream_connects_total{pool="app",result="ok",reused="true"}`:                1,
		`proxyd_upstream_retries_total{pool="app",result="ok"}`:                               1,
	})
}

func TestCountersOutliveAReloadAndGoWithTheirPool(t *testing.T) {
	p, _ := start(t, base())
	x := get("h", "/")
	begin(p, x)
	respond(p, x, 200)
	p.End(x, nil)
	conf := base()
	conf.Pool["new"] = pool("new", "192.0.2.9:80")
	conf.Route = append(conf.Route, &config.Route{Name: "new", Path: "/new", Pool: "new"})
	if err := p.Apply(conf); err != nil {
		t.Fatal(err)
	}
	one := map[string]float64{
		`proxyd_http_requests_total{code="200",listener="web",method="GET",route="all"}`:    1,
		`proxyd_upstream_requests_total{code_class="2xx",pool="app",server="192.0.2.1:80"}`: 1,
	}
	got := gather(t, p)
	wantSeries(t, got, one)
	wantSeries(t, got, map[string]float64{`proxyd_upstream_up{pool="new",server="192.0.2.9:80"}`: 1})
	if err := p.Apply(base()); err != nil {
		t.Fatal(err)
	}
	got = gather(t, p)
	wantSeries(t, got, one)
	for key := range got {
		if strings.Contains(key, `"new"`) {
			t.Errorf("%s is still there", key)
		}
	}
	p.NoteRejected()
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_config_last_reload_successful`:          0,
		`proxyd_config_reloads_total{result="ok"}`:      3,
		`proxyd_config_reloads_total{result="invalid"}`: 1,
	})
}

func TestBeyondAThousandRoutesTheLabelIsThePool(t *testing.T) {
	conf := base()
	for i := range maxRouteLabels + 1 {
		conf.Route = append(conf.Route, &config.Route{Name: fmt.Sprint("r", i), Path: fmt.Sprint("/", i), Pool: "app"})
	}
	p, _ := start(t, conf)
	x := get("h", "/5")
	begin(p, x)
	respond(p, x, 200)
	p.End(x, nil)
	wantSeries(t, gather(t, p), map[string]float64{`proxyd_http_requests_total{code="200",listener="web",method="GET",route="app"}`: 1})
}

func TestWhatAnotherPartRefusedIsRolledBack(t *testing.T) {
	p, _ := start(t, base())
	if err := p.Apply(base()); err != nil {
		t.Fatal(err)
	}
	if err := p.RollBack(base()); err != nil {
		t.Fatal(err)
	}
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_config_last_reload_successful`:              0,
		`proxyd_config_reloads_total{result="ok"}`:          2,
		`proxyd_config_reloads_total{result="rolled_back"}`: 1,
	})
}

func TestTheSeriesOfARemovedListenerGoWithItsLastConnection(t *testing.T) {
	conf := base()
	conf.Listener = map[string]*config.Listener{"web": {Name: "web", Address: []string{"127.0.0.1:0"}}, "old": {Name: "old", Address: []string{"[::1]:0"}}}
	p, _ := start(t, conf)
	old := &dataplane.Listener{Name: "old", Index: p.listeners.index("old")}
	client := netip.MustParseAddrPort("198.51.100.9:1")
	p.Admit(old, client)
	delete(conf.Listener, "old")
	if err := p.Apply(conf); err != nil {
		t.Fatal(err)
	}
	wantSeries(t, gather(t, p), map[string]float64{`proxyd_connections_open{listener="old",protocol="http1"}`: 1})
	p.Leave(old, client, dataplane.ClosedClient)
	for key := range gather(t, p) {
		if strings.Contains(key, `"old"`) {
			t.Errorf("%s is still there", key)
		}
	}
}

// The words of requests that are no HTTP, a hostile client's own among them, make no
// series.
func TestMalformedReasonsAreBounded(t *testing.T) { // E11
	p, _ := start(t, base())
	before := len(gather(t, p))
	l := &dataplane.Listener{Name: "web"}
	for i := range 1000 {
		p.Refused(l, netip.AddrPort{}, &dataplane.Malformed{Status: 400, Reason: fmt.Sprint(i)})
	}
	got := gather(t, p)
	wantSeries(t, got, map[string]float64{`proxyd_http_malformed_total{listener="web",reason="other"}`: 1000})
	if len(got) != before {
		t.Errorf("%d series became %d", before, len(got))
	}
}

func TestOverheadIsOurTimeAlone(t *testing.T) {
	start := time.Unix(100, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	for _, c := range []struct {
		name   string
		change func(*dataplane.Exchange)
		took   int
		want   time.Duration
		known  bool
	}{
		{"a short answer", func(*dataplane.Exchange) {}, 120, 12 * time.Millisecond, true},
		{"a long answer's body is not ours", func(x *dataplane.Exchange) { x.Response.Length = 1 << 20 }, 9000, 2 * time.Millisecond, true},
		{"a second attempt", func(x *dataplane.Exchange) { x.Attempt = 2 }, 120, 0, false},
		{"no answer", func(x *dataplane.Exchange) { x.Times.FirstByte = time.Time{} }, 120, 0, false},
		{"made here", func(x *dataplane.Exchange) { x.Mark.Local, x.Attempt = true, 0 }, 12, 2 * time.Millisecond, true},
		{"made here after an attempt", func(x *dataplane.Exchange) { x.Mark.Local = true }, 120, 0, false},
	} {
		x := &dataplane.Exchange{Attempt: 1}
		x.Times = dataplane.Times{Start: start, Head: at(10), Dial: 3 * time.Millisecond, Sent: at(15), FirstByte: at(110)}
		c.change(x)
		if got, known := overhead(x, at(c.took).Sub(start)); got != c.want || known != c.known {
			t.Errorf("%s: overhead = %v, %v, want %v, %v", c.name, got, known, c.want, c.known)
		}
	}
}
