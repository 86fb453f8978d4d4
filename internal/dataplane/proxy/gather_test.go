package proxy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func TestAServerIsChosenWhenTheBodyIsAtHand(t *testing.T) { // E1, A7
	for _, c := range []struct {
		why     string
		framing string
		buffer  int64
		length  int64
		want    dataplane.Verdict
	}{
		{"a body for a route with a buffer", "as-sent", 1000, 5, dataplane.Gather},
		{"no body", "as-sent", 1000, 0, dataplane.Next},
		{"a route that streams", "as-sent", 0, 5, dataplane.Next},
		{"chunks for a server that wants a length", "length", 0, -1, dataplane.Gather},
		{"a length for a server that wants one", "length", 0, 5, dataplane.Next},
	} {
		conf := base()
		conf.Pool["app"].Framing = c.framing
		conf.Route[0].Buffer = config.Size(c.buffer)
		p, _ := start(t, conf)
		x := get("h", "/")
		x.Request.Length, x.Request.Chunked = c.length, c.length < 0
		if got := begin(p, x); got != c.want {
			t.Errorf("%s: Begin = %v, want %v", c.why, got, c.want)
		}
		if c.want == dataplane.Next {
			continue
		}
		if x.Server != nil || !x.Route.Heavy {
			t.Errorf("%s: server %v before the body is there, heavy %t", c.why, x.Server, x.Route.Heavy)
		}
		sent := header(x.Request.Header)
		x.Gathered = true
		if got := p.Begin(x); got != dataplane.Next || x.Server == nil {
			t.Errorf("%s: Begin once more = %v, server %v", c.why, got, x.Server)
		}
		if d := cmp.Diff(sent, header(x.Request.Header)); d != "" {
			t.Errorf("%s: the second Begin changed the request: %s", c.why, d)
		}
	}
}
