package otlp

import (
	"encoding/hex"
	"strconv"
	"time"
)

// Kind is which side of a call a span is.
type Kind int

// The kinds that a proxy has, by the numbers of the protocol.
const (
	Server Kind = 2
	Client Kind = 3
)

// A Span is one piece of work of a trace.
type Span struct {
	Trace      [16]byte
	ID, Parent [8]byte // Parent is zero if there is none
	Name       string
	Kind       Kind
	Start, End time.Time
	Error      bool
	Attributes []Attribute
}

// An Attribute is a word about a span: a Text, or a Number. What is neither is left out, as
// nothing is known of it.
type Attribute struct {
	Key    string
	Text   string
	Number int64
}

// The message of the protocol, as far as it is used: ExportTraceServiceRequest.
type (
	export struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   resource     `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	resource struct {
		Attributes []attribute `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope  `json:"scope"`
		Spans []span `json:"spans"`
	}
	scope struct {
		Name string `json:"name"`
	}
	span struct {
		TraceID    string      `json:"traceId"`
		SpanID     string      `json:"spanId"`
		Parent     string      `json:"parentSpanId,omitempty"`
		Name       string      `json:"name"`
		Kind       Kind        `json:"kind"`
		Start      string      `json:"startTimeUnixNano"`
		End        string      `json:"endTimeUnixNano"`
		Attributes []attribute `json:"attributes"`
		Status     status      `json:"status"`
	}
	status struct {
		Code int `json:"code,omitempty"`
	}
	attribute struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		Text   *string `json:"stringValue,omitempty"`
		Number *string `json:"intValue,omitempty"` // 64-bit numbers are texts in the JSON form
	}
)

const statusError = 2

func request(to *target, batch []Span) export {
	spans := make([]span, len(batch))
	for i := range batch {
		spans[i] = encode(&batch[i])
	}
	return export{[]resourceSpans{{
		Resource: resource{attributes([]Attribute{
			{Key: "service.name", Text: "proxyd"},
			{Key: "service.instance.id", Text: to.node},
			{Key: "service.namespace", Text: to.cluster},
		})},
		ScopeSpans: []scopeSpans{{Scope: scope{"proxyd"}, Spans: spans}},
	}}}
}

func encode(s *Span) span {
	out := span{
		TraceID: hex.EncodeToString(s.Trace[:]), SpanID: hex.EncodeToString(s.ID[:]), Name: s.Name, Kind: s.Kind,
		Start: strconv.FormatInt(s.Start.UnixNano(), 10), End: strconv.FormatInt(s.End.UnixNano(), 10),
		Attributes: attributes(s.Attributes),
	}
	if s.Parent != ([8]byte{}) {
		out.Parent = hex.EncodeToString(s.Parent[:])
	}
	if s.Error {
		out.Status.Code = statusError
	}
	return out
}

func attributes(all []Attribute) []attribute {
	out := make([]attribute, 0, len(all))
	for i := range all {
		switch a := &all[i]; {
		case a.Text != "":
			out = append(out, attribute{a.Key, value{Text: &a.Text}})
		case a.Number != 0:
			n := strconv.FormatInt(a.Number, 10)
			out = append(out, attribute{a.Key, value{Number: &n}})
		}
	}
	return out
}
