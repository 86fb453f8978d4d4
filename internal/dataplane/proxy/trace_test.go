package proxy

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

const (
	foreignParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	foreignTrace  = "0af7651916cd43dd8448eb211c80319c"
)

// traced is base with ids, for whom the peers of 10.0.0.0/8 are trusted.
func traced(on bool) *config.Config {
	c := base()
	c.Node.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	c.Trace = config.Trace{RequestID: "X-Request-Id", Context: on}
	return c
}

// sentBy has a client of that address send fields, and returns what the server is sent.
func sentBy(p *Plane, client string, lines ...string) (*dataplane.Exchange, func(name string) string) {
	x := with(get("h", "/"), lines...)
	x.Client = netip.MustParseAddrPort(client)
	begin(p, x)
	return x, func(name string) string {
		all := []string{}
		for _, l := range header(x.Request.Header) {
			if v, ok := strings.CutPrefix(strings.ToLower(l), strings.ToLower(name)+": "); ok {
				all = append(all, v)
			}
		}
		return strings.Join(all, "|")
	}
}

func TestRequestIDsOfStrangersAreMadeAnew(t *testing.T) { // B9
	p, log := start(t, traced(false))
	x, sent := sentBy(p, "198.51.100.9:1", "X-Request-ID: evil", "x-request-id: evil2")
	id := sent("X-Request-Id")
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		t.Errorf("the server is sent %q", id)
	}
	x.Response.Header.Add(dataplane.XRequestID, []byte("X-Request-ID"), []byte("of the server"))
	respond(p, x, 200)
	if got := header(x.Response.Header); !slices.Equal(got, []string{"X-Request-Id: " + id, "Via: 1.1 proxyd"}) {
		t.Errorf("the client is sent %q", got)
	}
	p.End(x, nil)
	y, sent := sentBy(p, "198.51.100.9:1")
	if again := sent("X-Request-Id"); again == id || len(again) != 32 {
		t.Errorf("the next exchange has %q after %q", again, id)
	}
	p.End(y, nil)
	p.Shutdown(context.Background())
	if !strings.Contains(log.String(), `"request_id":"`+id+`"`) {
		t.Errorf("the log has no %s: %s", id, log)
	}
}

func TestRequestIDsOfTrustedProxiesStay(t *testing.T) { // B9
	p, _ := start(t, traced(false))
	for given, want := range map[string]string{
		"a-1/b=c:d": "a-1/b=c:d", "a b": "", "a,b": "", `a"b`: "", strings.Repeat("x", 129): "", "": "",
	} {
		x, sent := sentBy(p, "10.0.0.1:1", "X-Request-Id: "+given)
		if got := sent("X-Request-Id"); got != want && (want != "" || len(got) != 32) {
			t.Errorf("given %q, the server is sent %q", given, got)
		}
		p.End(x, nil)
	}
}

func TestRequestIDIsOnAnswersMadeHere(t *testing.T) {
	c := traced(false)
	c.Trace.RequestID = "X-Correlation"
	c.Pool["app"] = pool("app")
	p, _ := start(t, c)
	x, _ := sentBy(p, "198.51.100.9:1", "x-correlation: evil")
	if got := header(x.Response.Header); x.Response.Status != 503 || !slices.Contains(got, "X-Correlation: "+string(x.Mark.RequestID)) || len(x.Mark.RequestID) != 32 {
		t.Errorf("answered %d %q", x.Response.Status, got)
	}
}

func TestTracesOfStrangersAreBegunAnew(t *testing.T) { // B9
	p, _ := start(t, traced(true))
	x, sent := sentBy(p, "198.51.100.9:1", "traceparent: "+foreignParent, "tracestate: a=b")
	got := sent("traceparent")
	var m dataplane.Trace
	if !parseTraceParent([]byte(got), &m) || m.Sampled || hex.EncodeToString(m.ID[:]) == foreignTrace || m.Parent != x.Mark.Trace.Span || m.ID != x.Mark.Trace.ID {
		t.Errorf("the server is sent %q, and %+v is known", got, x.Mark.Trace)
	}
	if hex.EncodeToString(m.ID[:]) != sent("X-Request-Id") {
		t.Errorf("trace %x, request %s", m.ID, sent("X-Request-Id"))
	}
	if state := sent("tracestate"); state != "" {
		t.Errorf("tracestate %q", state)
	}
}

func TestTracesOfTrustedProxiesGoOn(t *testing.T) { // B9
	p, log := start(t, traced(true))
	x, sent := sentBy(p, "10.0.0.1:1", "traceparent: "+foreignParent, "tracestate: a=b", "tracestate: c=d")
	m := x.Mark.Trace
	if want := "00-" + foreignTrace + "-" + hex.EncodeToString(m.Span[:]) + "-01"; sent("traceparent") != want || !m.Sampled || hex.EncodeToString(m.Parent[:]) != "b7ad6b7169203331" {
		t.Errorf("the server is sent %q, want %q; %+v is known", sent("traceparent"), want, m)
	}
	if got := sent("tracestate"); got != "a=b|c=d" {
		t.Errorf("tracestate %q", got)
	}
	p.End(x, nil)
	p.Shutdown(context.Background())
	if !strings.Contains(log.String(), `"trace_id":"`+foreignTrace+`"`) {
		t.Errorf("log %s", log)
	}
}

func TestWithoutContextTracesAreNotOurs(t *testing.T) { // B9
	p, _ := start(t, traced(false))
	for client, want := range map[string]string{"198.51.100.9:1": "", "10.0.0.1:1": foreignParent} {
		x, sent := sentBy(p, client, "traceparent: "+foreignParent)
		if got := sent("traceparent"); got != want {
			t.Errorf("from %s the server is sent %q", client, got)
		}
		p.End(x, nil)
	}
}

func TestTraceParentsThatAreNone(t *testing.T) {
	for why, v := range map[string]string{
		"empty":               "",
		"no trace":            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"no span":             "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"upper case":          "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
		"version ff":          "ff" + foreignParent[2:],
		"version 00 and more": foreignParent + "-00",
		"glued":               "01" + foreignParent[2:] + "00",
		"short":               foreignParent[:54],
		"other separators":    strings.ReplaceAll(foreignParent, "-", "_"),
	} {
		var m dataplane.Trace
		if parseTraceParent([]byte(v), &m) {
			t.Errorf("%s: %q was taken as %+v", why, v, m)
		}
	}
	var m dataplane.Trace
	if !parseTraceParent([]byte("cc"+foreignParent[2:]+"-more"), &m) {
		t.Error("a later version was refused")
	}
}

func TestShareOfSampledTraces(t *testing.T) {
	for share, want := range map[config.Share][2]int{0: {0, 0}, 0.5: {400, 600}, 1: {1000, 1000}} {
		c := traced(true)
		c.Trace.Sample = share
		p, _ := start(t, c)
		n := 0
		for range 1000 {
			x, _ := sentBy(p, "198.51.100.9:1")
			if x.Mark.Trace.Sampled {
				n++
			}
			p.End(x, nil)
		}
		if n < want[0] || n > want[1] {
			t.Errorf("sample %s: %d of 1000", share, n)
		}
	}
}

func FuzzTraceParent(f *testing.F) {
	f.Add([]byte(foreignParent))
	f.Fuzz(func(t *testing.T, v []byte) {
		var m dataplane.Trace
		if parseTraceParent(v, &m) == (m == dataplane.Trace{}) {
			t.Errorf("%q gives %+v", v, m)
		}
	})
}
