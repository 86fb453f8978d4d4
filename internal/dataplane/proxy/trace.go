package proxy

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// tracing says by what an exchange is found again elsewhere.
type tracing struct {
	name   []byte            // of the field with the request id; empty: there are none
	id     dataplane.FieldID // of that name
	on     bool              // exchanges are part of W3C traces
	sample uint64            // a trace begun here is sampled if its random number is below
}

var (
	nameTraceParent = []byte("traceparent")
	traceVersion    = []byte("00-")
)

func newTracing(c config.Trace) tracing {
	t := tracing{name: []byte(c.RequestID), id: http1.Identify([]byte(c.RequestID)), on: c.Context}
	if t.sample = uint64(float64(c.Sample) * (1 << 63)); c.Sample >= 1 {
		t.sample = 1 << 63
	}
	return t
}

// identify gives x its request id and its place in a trace, and strips what former hops
// say of themselves. Only a trusted proxy's ids are gone on with: those of anybody else
// are made anew (B9). The fields that are added here can be named away by nobody, since
// what Connection nominates is gone, but a policy may change them.
func (s *snapshot) identify(x *dataplane.Exchange, trusted bool) {
	t, h := &s.trace, &x.Request.Header
	var parent []byte
	if trusted {
		parent = t.believe(x)
	}
	traced := trusted && (!t.on || parent != nil) // the fields of the trace stay
	// What a trusted proxy says of its client's certificate stays, unless it shows one itself.
	certified := trusted && (x.TLS == nil || len(x.TLS.PeerCertificates) == 0)
	kept := 0
	for i := range *h {
		f := &(*h)[i]
		switch f.ID {
		case dataplane.TraceParent, dataplane.TraceState:
			if !traced {
				continue
			}
		default:
			if tellsOfHops(f) || t.isRequestID(f) || !certified && isClientCert(f) {
				continue
			}
		}
		if kept != i {
			(*h)[kept] = *f
		}
		kept++
	}
	*h = (*h)[:kept]

	var fresh [16]byte
	if len(t.name) > 0 {
		if x.Mark.RequestID == nil {
			fresh = randomID()
			from := len(x.Text)
			x.Text = hex.AppendEncode(x.Text, fresh[:])
			x.Mark.RequestID = x.Text[from:len(x.Text):len(x.Text)]
		}
		h.Add(t.id, t.name, x.Mark.RequestID)
	}
	if t.on {
		t.join(x, parent, fresh)
	}
}

// believe takes over the request id of a trusted peer, if it is good, and returns a good
// traceparent.
func (t *tracing) believe(x *dataplane.Exchange) (parent []byte) {
	parents := 0
	for i := range x.Request.Header {
		switch f := &x.Request.Header[i]; {
		case f.ID == dataplane.TraceParent:
			parent = f.Value
			parents++
		case x.Mark.RequestID == nil && t.isRequestID(f) && goodRequestID(f.Value):
			x.Mark.RequestID = f.Value
		}
	}
	if parents != 1 || !parseTraceParent(parent, &x.Mark.Trace) {
		return nil
	}
	return parent
}

// join makes x a span of the trace that parent tells of, or of a new one, and tells the
// server. A trace that begins here has the request id for its own, if that is fresh.
func (t *tracing) join(x *dataplane.Exchange, parent []byte, fresh [16]byte) {
	m := &x.Mark.Trace
	if parent == nil {
		if fresh == [16]byte{} {
			fresh = randomID()
		}
		*m = dataplane.Trace{ID: fresh, Sampled: rand.Uint64()>>1 < t.sample}
	}
	m.On = true
	binary.BigEndian.PutUint64(m.Span[:], rand.Uint64()|1) // never zero
	from := len(x.Text)
	b := append(x.Text, traceVersion...)
	b = append(hex.AppendEncode(b, m.ID[:]), '-')
	b = append(hex.AppendEncode(b, m.Span[:]), '-', '0', '0')
	if m.Sampled {
		b[len(b)-1] = '1'
	}
	x.Text = b
	value := b[from:len(b):len(b)]
	for i := range x.Request.Header {
		if x.Request.Header[i].ID == dataplane.TraceParent {
			x.Request.Header[i].Value = value
			return
		}
	}
	x.Request.Header.Add(dataplane.TraceParent, nameTraceParent, value)
}

// tell puts the request id on the answer, in the place of what the server says.
func (t *tracing) tell(x *dataplane.Exchange) {
	if len(x.Mark.RequestID) == 0 {
		return
	}
	h := &x.Response.Header
	kept := 0
	for i := range *h {
		if f := &(*h)[i]; !t.isRequestID(f) {
			if kept != i {
				(*h)[kept] = *f
			}
			kept++
		}
	}
	*h = (*h)[:kept]
	h.Add(t.id, t.name, x.Mark.RequestID)
}

func (t *tracing) isRequestID(f *dataplane.Field) bool {
	return f.ID == t.id && len(t.name) > 0 && (t.id != dataplane.Other || len(f.Name) == len(t.name) && bytes.EqualFold(f.Name, t.name))
}

// randomID returns 16 bytes that nobody can foresee and that are not all zero. The
// generator is seeded by the system and asks it for nothing per request.
func randomID() (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()|1)
	return id
}

// goodRequestID reports whether a trusted peer's id may go into fields and logs.
func goodRequestID(v []byte) bool {
	for _, c := range v {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == ',' {
			return false
		}
	}
	return len(v) > 0 && len(v) <= 128
}

// parseTraceParent reads a traceparent (W3C Trace Context, 3.2) into t. Of a version that
// is not known, what is known of it counts.
func parseTraceParent(v []byte, t *dataplane.Trace) bool {
	const form = "00-00000000000000000000000000000000-0000000000000000-00"
	if len(v) < len(form) || len(v) > len(form) && (v[len(form)] != '-' || v[0] == '0' && v[1] == '0') || v[0] == 'f' && v[1] == 'f' {
		return false
	}
	for i := range len(form) {
		c := v[i]
		if form[i] == '-' && c != '-' || form[i] == '0' && !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	var flags [1]byte
	var read dataplane.Trace
	_, err1 := hex.Decode(read.ID[:], v[3:35])
	_, err2 := hex.Decode(read.Parent[:], v[36:52])
	_, err3 := hex.Decode(flags[:], v[53:55])
	if err1 != nil || err2 != nil || err3 != nil || read.ID == [16]byte{} || read.Parent == [8]byte{} {
		return false
	}
	read.Sampled = flags[0]&1 != 0
	*t = read
	return true
}
