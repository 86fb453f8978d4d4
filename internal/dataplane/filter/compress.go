package filter

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// compress sends answers in a coding that the client accepts. It changes the head in
// Response, and puts the coding's body filter before the others of the exchange.
type compress struct {
	types  []string // lower case: "text/*", "application/json", "+json"
	min    int64
	offers []coding
	coders *Coders
	pad    int // at most so many bytes are added, so that the length tells less (G4)
}

func newCompress(c *config.Compress, coders *Coders) *compress {
	f := &compress{min: int64(c.Min), coders: coders, pad: int(c.Padding)}
	for _, t := range c.Types {
		f.types = append(f.types, strings.ToLower(t))
	}
	for _, name := range c.With {
		f.offers = append(f.offers, codingOf([]byte(name)))
	}
	return f
}

// String says what is done.
func (f *compress) String() string {
	names := make([]string, len(f.offers))
	for i, c := range f.offers {
		names[i] = codingNames[c]
	}
	text := fmt.Sprintf("%s, of %d bytes and more: %s", strings.Join(names, ", "), f.min, strings.Join(f.types, " "))
	if f.pad > 0 {
		text += fmt.Sprintf("; up to %d bytes longer", f.pad)
	}
	return text
}

// about is what the fields of an answer say that matters here.
type about struct {
	kind        []byte // Content-Type
	coded       bool   // Content-Encoding, or a part only
	noTransform bool
	secret      bool // not to be compressed beside what a stranger may have put in (BREACH)
	private     bool
	etag        int // place of the field, or -1
	vary        bool
}

var (
	contentType     = newName("Content-Type")
	contentEncoding = newName("Content-Encoding")
	contentRange    = newName("Content-Range")
	cacheControl    = newName("Cache-Control")
	etagName        = newName("ETag")
	varyName        = newName("Vary")
	ifNoneMatch     = newName("If-None-Match")

	// ofIdentity are fields that are true of the answer as the server sent it alone.
	ofIdentity = []name{newName("Content-Length"), newName("Accept-Ranges"), newName("Content-MD5"), newName("Digest"),
		newName("Content-Digest"), newName("Repr-Digest")}

	weak       = []byte("W/")
	varyByThis = []byte("Accept-Encoding")
)

func (f *compress) Response(x *dataplane.Exchange) dataplane.Verdict {
	r := &x.Response
	switch {
	case r.Status < 200 || r.Status == 204 || r.Status == 206:
		return dataplane.Next
	case r.Status == 304:
		f.unchanged(x)
		return dataplane.Next
	}
	a := look(r.Header)
	if !f.wants(a.kind) {
		return dataplane.Next
	}
	if !a.vary {
		r.Header.Add(varyName.id, varyName.text, varyByThis)
	}
	if a.coded || a.noTransform || a.secret || a.private && reflects(x) || r.Length >= 0 && r.Length < f.min {
		return dataplane.Next
	}
	c := negotiate(x.Request.Header, f.offers)
	if c == identity || !f.coders.room() {
		return dataplane.Next
	}
	if a.etag >= 0 {
		weaken(x, &r.Header[a.etag])
	}
	without(&r.Header, len(r.Header), ofIdentity)
	r.Header.Add(contentEncoding.id, contentEncoding.text, []byte(codingNames[c]))
	r.Length = -1
	x.Filters = slices.Insert(x.Filters, 0, dataplane.BodyFilter(coded{f.coders, c, f.pad}))
	return dataplane.Next
}

// wants reports whether answers of that type are compressed.
func (f *compress) wants(kind []byte) bool {
	kind, _, _ = bytes.Cut(kind, semicolon)
	kind = bytes.TrimSpace(kind)
	for _, t := range f.types {
		fits := false
		switch n := len(t); {
		case strings.HasSuffix(t, "/*"):
			fits = len(kind) > n-1 && bytes.EqualFold(kind[:n-1], []byte(t[:n-1]))
		case t[0] == '+':
			fits = len(kind) > n && bytes.EqualFold(kind[len(kind)-n:], []byte(t))
		default:
			fits = bytes.EqualFold(kind, []byte(t))
		}
		if fits {
			return true
		}
	}
	return false
}

// look reads the fields of an answer.
func look(h dataplane.Header) about {
	a := about{etag: -1}
	for i := range h {
		f := &h[i]
		switch {
		case f.ID == dataplane.SetCookie:
			a.secret = true
		case f.ID != dataplane.Other:
		case contentType.is(f):
			a.kind = f.Value
		case contentEncoding.is(f), contentRange.is(f):
			a.coded = true
		case etagName.is(f):
			a.etag = i
		case varyName.is(f):
			a.vary = a.vary || lists(f.Value, "accept-encoding") || lists(f.Value, "*")
		case cacheControl.is(f):
			a.noTransform = a.noTransform || lists(f.Value, "no-transform")
			a.secret = a.secret || lists(f.Value, "no-store")
			a.private = a.private || lists(f.Value, "private")
		}
	}
	return a
}

// lists reports whether a comma-separated list has the member, with or without a value.
func lists(list []byte, member string) bool {
	for len(list) > 0 {
		var m []byte
		m, list, _ = bytes.Cut(list, comma)
		m, _, _ = bytes.Cut(m, []byte("="))
		if m = bytes.TrimSpace(m); bytes.EqualFold(m, []byte(member)) {
			return true
		}
	}
	return false
}

// reflects reports whether the request has something that an answer could repeat and
// that another site can choose: G4 of the threat list.
func reflects(x *dataplane.Exchange) bool {
	_, query := x.Asked()
	return len(query) > 0 || x.Request.Length != 0
}

// weaken makes an entity tag a weak one: the coded answer is not the server's, octet for
// octet (RFC 9110, 8.8.1).
func weaken(x *dataplane.Exchange, f *dataplane.Field) {
	if !bytes.HasPrefix(f.Value, weak) {
		f.Value = x.Keep(weak, f.Value)
	}
}

// unchanged makes the tag of a 304 the one that the client has.
func (f *compress) unchanged(x *dataplane.Exchange) {
	h := x.Response.Header
	for i := range h {
		if !etagName.is(&h[i]) || bytes.HasPrefix(h[i].Value, weak) {
			continue
		}
		tag := x.Keep(weak, h[i].Value)
		for k := range x.Request.Header {
			if q := &x.Request.Header[k]; ifNoneMatch.is(q) && bytes.Contains(q.Value, tag) {
				h[i].Value = tag
				return
			}
		}
	}
}

// coded is the body filter of one coding.
type coded struct {
	coders *Coders
	coding coding
	pad    int
}

func (c coded) RequestBody(_ *dataplane.Exchange, r io.Reader) (io.Reader, error) { return r, nil }

func (c coded) ResponseBody(_ *dataplane.Exchange, w io.WriteCloser) io.WriteCloser {
	return c.coders.open(c.coding, c.pad, w)
}
