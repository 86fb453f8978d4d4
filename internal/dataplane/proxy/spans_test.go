package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"proxyd/internal/config"
)

func TestASampledExchangeIsTwoSpans(t *testing.T) {
	type span struct{ TraceID, SpanID, ParentSpanID, Name string }
	var got struct {
		ResourceSpans []struct{ ScopeSpans []struct{ Spans []span } }
	}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
	}))
	defer collector.Close()
	conf := base()
	conf.Trace = config.Trace{Context: true, OTLP: collector.URL, Sample: 1}
	p, _ := start(t, conf)
	x := get("h", "/")
	begin(p, x)
	x.Times.Sent = x.Times.Head
	respond(p, x, 200)
	id := x.Mark.Trace.ID
	p.End(x, nil)
	p.Shutdown(context.Background()) // which sends what waits
	if id == ([16]byte{}) || len(got.ResourceSpans) != 1 || len(got.ResourceSpans[0].ScopeSpans[0].Spans) != 2 {
		t.Fatalf("trace %x, spans %+v", id, got)
	}
	own, asked := got.ResourceSpans[0].ScopeSpans[0].Spans[0], got.ResourceSpans[0].ScopeSpans[0].Spans[1]
	if own.Name != "GET all" || own.ParentSpanID != "" || asked.ParentSpanID != own.SpanID || asked.TraceID != own.TraceID {
		t.Errorf("spans %+v, %+v", own, asked)
	}
}

func TestASpanTellsWhatTheClientAskedFor(t *testing.T) {
	type attribute struct {
		Key   string
		Value struct{ StringValue, IntValue string }
	}
	var got struct {
		ResourceSpans []struct {
			ScopeSpans []struct {
				Spans []struct{ Attributes []attribute }
			}
		}
	}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
	}))
	defer collector.Close()
	conf := base()
	conf.Trace = config.Trace{Context: true, OTLP: collector.URL, Sample: 1}
	conf.Node.TrustedProxies = networks("198.51.100.0/24")
	conf.Route = []*config.Route{{Name: "v1", Path: "/v1/*", Pool: "app", StripPrefix: "/v1"}}
	p, _ := start(t, conf)
	x := with(get("h", "/v1/a"), "X-Forwarded-Proto: https", "User-Agent: ")
	x.Request.Host = nil // HTTP/1.0 may name none
	begin(p, x)
	x.Times.Sent = x.Times.Head
	respond(p, x, 200)
	p.End(x, nil)
	p.Shutdown(context.Background())
	said := map[string]string{}
	for _, a := range got.ResourceSpans[0].ScopeSpans[0].Spans[0].Attributes {
		said[a.Key] = a.Value.StringValue + a.Value.IntValue
	}
	if said["url.path"] != "/v1/a" || said["url.scheme"] != "https" {
		t.Errorf("path %q by %q, want what the client asked for", said["url.path"], said["url.scheme"])
	}
	for _, key := range []string{"server.address", "user_agent.original"} {
		if v, there := said[key]; there {
			t.Errorf("%s is %q; the client said none", key, v)
		}
	}
}

func TestWhatIsNotSampledMakesNoSpan(t *testing.T) {
	conf := base()
	conf.Trace = config.Trace{Context: true, OTLP: "http://127.0.0.1:1", Sample: 0}
	p, _ := start(t, conf)
	x := get("h", "/")
	begin(p, x)
	respond(p, x, 200)
	p.End(x, nil)
	p.Shutdown(context.Background())
	if n := p.spans.Failed.Load() + p.spans.Sent.Load(); n != 0 {
		t.Errorf("%d spans", n)
	}
}
