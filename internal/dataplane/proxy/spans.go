package proxy

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/otlp"
)

// versionOf is the version of HTTP as OpenTelemetry writes it.
func versionOf(q *dataplane.Request) string {
	if q.Version > 0 {
		return string('0' + rune(q.Version))
	}
	return "1." + string('0'+rune(q.Minor))
}

// exportSpans makes the spans of a finished exchange that is wanted: one of the exchange,
// and below it one of its last attempt. The names of attributes are OpenTelemetry's.
func (p *Plane) exportSpans(x *dataplane.Exchange, status int, err error, now time.Time) {
	t, q := &x.Mark.Trace, &x.Request
	method := methods[q.Method]
	if q.Method == dataplane.MethodOther {
		method = "_OTHER"
	}
	common := []otlp.Attribute{{Key: "http.request.method", Text: method}, {Key: "http.response.status_code", Number: int64(status)}}
	word := x.Mark.Reason
	if word == "" && status >= 500 {
		word = codeLabel(int(codePlace(status)))
	}
	path, _ := x.Asked()
	own := append(common[:2:2],
		otlp.Attribute{Key: "http.route", Text: x.Route.Name},
		otlp.Attribute{Key: "url.path", Text: string(path)},
		otlp.Attribute{Key: "server.address", Text: string(q.Host)},
		otlp.Attribute{Key: "client.address", Text: x.Mark.ClientIP.String()},
		otlp.Attribute{Key: "url.scheme", Text: string(x.Mark.Scheme)},
		otlp.Attribute{Key: "network.protocol.version", Text: versionOf(q)},
		otlp.Attribute{Key: "user_agent.original", Text: string(q.Header.Get(dataplane.UserAgent))},
	)
	failed := err != nil || status >= 500
	if failed {
		own = append(own, otlp.Attribute{Key: "error.type", Text: word})
	}
	p.spans.Export(otlp.Span{
		Trace: t.ID, ID: t.Span, Parent: t.Parent, Name: method + " " + x.Route.Name, Kind: otlp.Server,
		Start: x.Times.Start, End: now, Error: failed, Attributes: own,
	})
	if x.Server == nil || x.Times.Sent.IsZero() {
		return
	}
	asked := append(common[:1:1],
		otlp.Attribute{Key: "server.address", Text: x.Server.Name},
		otlp.Attribute{Key: "http.request.resend_count", Number: int64(max(x.Attempt-1, 0))})
	if x.Mark.Answered {
		asked = append(asked, common[1])
	}
	s := otlp.Span{
		Trace: t.ID, Parent: t.Span, Name: method, Kind: otlp.Client,
		Start: x.Times.Sent.Add(-x.Times.Dial), End: now, Error: !x.Mark.Answered || status >= 400, Attributes: asked,
	}
	binary.BigEndian.PutUint64(s.ID[:], rand.Uint64()|1) // not zero, which is none
	p.spans.Export(s)
}
