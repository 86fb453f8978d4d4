package otlp

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestACollectorGetsSpansInItsForm(t *testing.T) {
	got := make(chan []byte, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s, %s", r.Method, r.URL, r.Header.Get("Content-Type"))
		}
		body, _ := io.ReadAll(r.Body)
		got <- body
	}))
	defer collector.Close()
	e := New(quiet())
	e.Use(collector.URL, "edge-1", "edge")
	e.Export(Span{
		Trace: [16]byte{1}, ID: [8]byte{2}, Parent: [8]byte{3}, Name: "GET all", Kind: Server, Start: noon, End: noon.Add(time.Millisecond), Error: true,
		Attributes: []Attribute{{Key: "url.path", Text: "/a"}, {Key: "http.response.status_code", Number: 502}},
	})
	e.Close(context.Background())
	want := `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"proxyd"}},` +
		`{"key":"service.instance.id","value":{"stringValue":"edge-1"}},{"key":"service.namespace","value":{"stringValue":"edge"}}]},` +
		`"scopeSpans":[{"scope":{"name":"proxyd"},"spans":[{"traceId":"01000000000000000000000000000000","spanId":"0200000000000000","parentSpanId":"0300000000000000",` +
		`"name":"GET all","kind":2,"startTimeUnixNano":"1795521600000000000","endTimeUnixNano":"1795521600001000000",` +
		`"attributes":[{"key":"url.path","value":{"stringValue":"/a"}},{"key":"http.response.status_code","value":{"intValue":"502"}}],"status":{"code":2}}]}]}]}`
	if body := <-got; string(body) != want {
		t.Errorf("\n got %s\nwant %s", body, want)
	} else if !json.Valid(body) {
		t.Error("no JSON")
	}
	if e.Sent.Load() != 1 || e.Failed.Load() != 0 {
		t.Errorf("sent %d, failed %d", e.Sent.Load(), e.Failed.Load())
	}
}

func TestADeadCollectorCostsSpansAndNoMore(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	refuses := httptest.NewServer(http.NotFoundHandler())
	defer refuses.Close()
	for _, url := range []string{gone.URL, refuses.URL} {
		e := New(quiet())
		e.Use(url, "edge-1", "edge")
		e.Export(Span{Start: noon, End: noon})
		e.Close(context.Background())
		if e.Failed.Load() != 1 || e.Sent.Load() != 0 {
			t.Errorf("sent %d, failed %d, want 0 and 1", e.Sent.Load(), e.Failed.Load())
		}
	}
}

func TestSpansThatAreThereWhenItIsTurnedOffAreDropped(t *testing.T) {
	e := New(quiet())
	e.Export(Span{Start: noon, End: noon})
	e.Close(context.Background())
	if e.Dropped.Load() != 1 || e.Sent.Load() != 0 {
		t.Errorf("dropped %d, sent %d, want 1 and 0", e.Dropped.Load(), e.Sent.Load())
	}
}

func TestNobodyWaitsForASlowCollector(t *testing.T) {
	free := make(chan bool)
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	defer slow.Close()
	e := New(quiet())
	e.Use(slow.URL, "edge-1", "edge")
	for range maxWaiting + 2*maxBatch {
		e.Export(Span{Start: noon, End: noon})
	}
	if e.Dropped.Load() == 0 {
		t.Error("nothing was dropped")
	}
	close(free)
	e.Close(context.Background())
}
