package filter

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	brotlireader "github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"
	gzipreader "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func TestNegotiation(t *testing.T) { // RFC 9110, 12.5.3
	for _, c := range []struct {
		why    string
		fields []string
		want   coding
	}{
		{"no field", nil, identity},
		{"empty", []string{""}, identity},
		{"one", []string{"gzip"}, gzip},
		{"ours is the order of equals", []string{"gzip, deflate, br, zstd"}, zstandard},
		{"the client's weights go first", []string{"gzip;q=1.0, br;q=0.9, zstd;q=0.1"}, gzip},
		{"three places", []string{"gzip;q=0.101, br;q=0.102"}, brotli},
		{"two fields are one list", []string{"gzip;q=0.5", "br"}, brotli},
		{"none of it", []string{"gzip;q=0"}, identity},
		{"anything", []string{"*"}, zstandard},
		{"anything but", []string{"*, zstd;q=0"}, brotli},
		{"nothing", []string{"*;q=0"}, identity},
		{"nothing but", []string{"*;q=0, gzip"}, gzip},
		{"identity is excluded, but there is no other", []string{"identity;q=0, *;q=0"}, identity},
		{"identity is excluded", []string{"identity;q=0, gzip;q=0.1"}, gzip},
		{"identity is liked better", []string{"identity, gzip;q=0.5"}, identity},
		{"identity is liked as much", []string{"identity, gzip"}, gzip},
		{"case and space", []string{" GZip ; Q = 0.5 "}, gzip},
		{"the old name", []string{"x-gzip"}, gzip},
		{"unknown", []string{"deflate, compress, foo"}, identity},
		{"a weight that is none", []string{"gzip;q=2, br;q=x, zstd;q=0.1234"}, identity},
		{"another parameter", []string{"gzip;a=b;q=0.3, br;q=0.2"}, gzip},
		{"stray commas", []string{",, ,gzip,;q=1"}, gzip},
	} {
		var h dataplane.Header
		for _, v := range c.fields {
			h = append(h, fields("Accept-Encoding: "+v)...)
		}
		if got := negotiate(h, []coding{zstandard, brotli, gzip}); got != c.want {
			t.Errorf("%s: %q gives %s, want %s", c.why, c.fields, codingNames[got], codingNames[c.want])
		}
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add("gzip;q=0.5, *;q=0", "br")
	f.Fuzz(func(t *testing.T, a, b string) {
		c := negotiate(fields("Accept-Encoding: "+a, "accept-encoding: "+b), []coding{zstandard, brotli, gzip})
		text := strings.ToLower(a + "," + b)
		if c >= codings || c != identity && !strings.Contains(text, codingNames[c]) && !strings.Contains(text, "*") && !strings.Contains(text, "x-gzip") {
			t.Errorf("%q, %q gives %d", a, b, c)
		}
	})
}

// usual is compress = true with everything accepted.
func usual(t *testing.T) (dataplane.ResponseFilter, *Coders) {
	t.Helper()
	coders := new(Coders)
	s, err := New([]*config.Policy{{Compress: &config.Compress{
		Types: []string{"text/*", "application/json", "+json"}, Min: 1024, With: []string{"zstd", "br", "gzip"},
	}}}, Env{Coders: coders})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Heavy || len(s.Response) != 1 {
		t.Fatalf("got %+v", s)
	}
	return s.Response[0], coders
}

func TestWhichAnswersAreCompressed(t *testing.T) {
	f, _ := usual(t)
	const html, vary = "Content-Type: text/html", "Vary: Accept-Encoding"
	for _, c := range []struct {
		why    string
		change func(x *dataplane.Exchange)
		fields []string
		want   []string
	}{
		{"text", nil, []string{html}, []string{html, vary, "Content-Encoding: gzip"}},
		{"parameters and case", nil, []string{"Content-Type: Text/HTML ; charset=utf-8"}, []string{"Content-Type: Text/HTML ; charset=utf-8", vary, "Content-Encoding: gzip"}},
		{"a suffix", nil, []string{"Content-Type: application/problem+json"}, []string{"Content-Type: application/problem+json", vary, "Content-Encoding: gzip"}},
		{"another type", nil, []string{"Content-Type: image/png"}, []string{"Content-Type: image/png"}},
		{"no type", nil, nil, nil},
		{"half a type", nil, []string{"Content-Type: text"}, []string{"Content-Type: text"}},
		{"the length of before", nil, []string{html, "Content-Length: 5000", "Accept-Ranges: bytes", "Content-MD5: x", "Repr-Digest: x"}, []string{html, vary, "Content-Encoding: gzip"}},
		{"too short", func(x *dataplane.Exchange) { x.Response.Length = 1023 }, []string{html}, []string{html, vary}},
		{"of unknown length", func(x *dataplane.Exchange) { x.Response.Length = -1 }, []string{html}, []string{html, vary, "Content-Encoding: gzip"}},
		{"a strong tag becomes weak", nil, []string{html, `ETag: "a"`}, []string{html, `ETag: W/"a"`, vary, "Content-Encoding: gzip"}},
		{"a weak tag stays", nil, []string{html, `etag: W/"a"`}, []string{html, `etag: W/"a"`, vary, "Content-Encoding: gzip"}},
		{"coded already", nil, []string{html, "Content-Encoding: br"}, []string{html, "Content-Encoding: br", vary}},
		{"Vary is there", nil, []string{html, "Vary: Cookie, accept-encoding"}, []string{html, "Vary: Cookie, accept-encoding", "Content-Encoding: gzip"}},
		{"another Vary", nil, []string{html, "Vary: Cookie"}, []string{html, "Vary: Cookie", vary, "Content-Encoding: gzip"}},
		{"Vary of everything", nil, []string{html, "Vary: *"}, []string{html, "Vary: *", "Content-Encoding: gzip"}},
		{"no-transform", nil, []string{html, "Cache-Control: public, No-Transform"}, []string{html, "Cache-Control: public, No-Transform", vary}},
		{"a part", func(x *dataplane.Exchange) { x.Response.Status = 206 }, []string{html}, []string{html}},
		{"a range all the same", nil, []string{html, "Content-Range: bytes 0-1/2"}, []string{html, "Content-Range: bytes 0-1/2", vary}},
		{"not modified", func(x *dataplane.Exchange) { x.Response.Status = 304 }, []string{html, `ETag: "a"`}, []string{html, `ETag: "a"`}},
		{"not modified, of a weak tag", func(x *dataplane.Exchange) {
			x.Response.Status = 304
			x.Request.Header = append(x.Request.Header, fields(`If-None-Match: "b", W/"a"`)...)
		}, []string{`ETag: "a"`}, []string{`ETag: W/"a"`}},
		{"an error", func(x *dataplane.Exchange) { x.Response.Status = 500 }, []string{html}, []string{html, vary, "Content-Encoding: gzip"}},
		{"nothing accepted", func(x *dataplane.Exchange) { x.Request.Header = nil }, []string{html, `ETag: "a"`}, []string{html, `ETag: "a"`, vary}},
		{"G4: a cookie", nil, []string{html, "Set-Cookie: a=b"}, []string{html, "Set-Cookie: a=b", vary}},
		{"G4: no-store", nil, []string{html, "Cache-Control: max-age=0, no-store"}, []string{html, "Cache-Control: max-age=0, no-store", vary}},
		{"private", nil, []string{html, "Cache-Control: private"}, []string{html, "Cache-Control: private", vary, "Content-Encoding: gzip"}},
		{"G4: private, with a query", func(x *dataplane.Exchange) { x.Request.Query = []byte("q=a") }, []string{html, "Cache-Control: private=\"x\""}, []string{html, "Cache-Control: private=\"x\"", vary}},
		{"G4: private, with a body", func(x *dataplane.Exchange) { x.Request.Length = -1 }, []string{html, "Cache-Control: private"}, []string{html, "Cache-Control: private", vary}},
		{"a query", func(x *dataplane.Exchange) { x.Request.Query = []byte("q=a") }, []string{html}, []string{html, vary, "Content-Encoding: gzip"}},
	} {
		x := &dataplane.Exchange{
			Request:  dataplane.Request{Header: fields("Accept-Encoding: gzip")},
			Response: dataplane.Response{Status: 200, Length: 5000, Header: fields(c.fields...)},
		}
		if c.change != nil {
			c.change(x)
		}
		length := x.Response.Length
		if v := f.Response(x); v != dataplane.Next {
			t.Errorf("%s: verdict %v", c.why, v)
		}
		if d := cmp.Diff(c.want, lines(x.Response.Header)); d != "" {
			t.Errorf("%s: %s", c.why, d)
		}
		packed := strings.Contains(strings.Join(c.want, "\n"), "Content-Encoding: gzip")
		if packed != (len(x.Filters) == 1) || packed && x.Response.Length != -1 || !packed && x.Response.Length != length {
			t.Errorf("%s: %d filters, length %d", c.why, len(x.Filters), x.Response.Length)
		}
	}
}

// A sink is the client's end of a body.
type sink struct {
	bytes.Buffer
	closed int
	err    error
}

func (s *sink) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.Buffer.Write(b)
}

func (s *sink) Close() error { s.closed++; return s.err }

func unpack(t *testing.T, c coding, b []byte) string {
	t.Helper()
	out, _ := io.ReadAll(unpacker(t, c, b)) // of a flushed body there is no end
	return string(out)
}

func unpacker(t *testing.T, c coding, b []byte) io.Reader {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	var err error
	switch c {
	case gzip:
		r, err = gzipreader.NewReader(r)
	case brotli:
		r = brotlireader.NewReader(r)
	case zstandard:
		r, err = zstd.NewReader(r, zstd.WithDecoderMaxWindow(8<<20)) // what browsers take
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBodiesComeThrough(t *testing.T) {
	coders := new(Coders)
	text := strings.Repeat("all work and no play ", 10_000)
	for c := zstandard; c < codings; c++ {
		for range 2 { // with a used encoder too
			out := &sink{}
			w := coded{coders, c, 0}.ResponseBody(nil, out)
			io.Copy(struct{ io.Writer }{w}, strings.NewReader(text))
			if err := w.Close(); err != nil || out.closed != 1 {
				t.Errorf("%s: %v, closed %d times", codingNames[c], err, out.closed)
			}
			if got := unpack(t, c, out.Bytes()); got != text || out.Len() > len(text)/10 {
				t.Errorf("%s: %d bytes became %d, and %d again", codingNames[c], len(text), out.Len(), len(got))
			}
		}
	}
	for _, d := range coders.Done() {
		if d.Answers != 2 || d.In != uint64(2*len(text)) || d.Out == 0 || d.Out > d.In {
			t.Errorf("counted %+v", d)
		}
	}
	if n := coders.busy.Load(); n != 0 {
		t.Errorf("%d encoders are in use", n)
	}
}

func TestAFlushLetsGoOfAll(t *testing.T) {
	for c := zstandard; c < codings; c++ {
		out := &sink{}
		w := coded{new(Coders), c, 0}.ResponseBody(nil, out)
		for _, event := range []string{"data: 1\n\n", "data: 2\n\n"} {
			io.WriteString(w, event)
			if err := w.(dataplane.Flusher).Flush(); err != nil {
				t.Fatal(err)
			}
			if got := unpack(t, c, out.Bytes()); !strings.HasSuffix(got, event) {
				t.Errorf("%s: after a flush the client has %q, want %q", codingNames[c], got, event)
			}
		}
		n := out.Len()
		w.(dataplane.Flusher).Flush()
		if out.Len() != n {
			t.Errorf("%s: a flush of nothing sends %d bytes", codingNames[c], out.Len()-n)
		}
		w.Close()
	}
}

func TestAnEncoderThatMetAnErrorIsGoodAgain(t *testing.T) {
	coders := new(Coders)
	for c := zstandard; c < codings; c++ {
		bad := &sink{err: errors.New("gone")}
		w := coded{coders, c, 0}.ResponseBody(nil, bad)
		io.WriteString(w, strings.Repeat("x y z ", 100_000))
		if err := w.Close(); err == nil || bad.closed != 1 {
			t.Errorf("%s: Close = %v, closed %d times", codingNames[c], err, bad.closed)
		}
		out := &sink{}
		w = coded{coders, c, 0}.ResponseBody(nil, out)
		io.WriteString(w, "good")
		if err := w.Close(); err != nil || unpack(t, c, out.Bytes()) != "good" {
			t.Errorf("%s: %v, %q", codingNames[c], err, out.Bytes())
		}
	}
}

func TestTooManyAnswersGoAsTheyAre(t *testing.T) { // E3
	f, coders := usual(t)
	coders.busy.Store(maxCoders)
	x := &dataplane.Exchange{
		Request:  dataplane.Request{Header: fields("Accept-Encoding: gzip")},
		Response: dataplane.Response{Status: 200, Length: 5000, Header: fields("Content-Type: text/html")},
	}
	f.Response(x)
	if len(x.Filters) != 0 || x.Response.Length != 5000 || coders.Spared() != 1 {
		t.Errorf("%d filters, length %d, spared %d", len(x.Filters), x.Response.Length, coders.Spared())
	}
}

func BenchmarkCompress(b *testing.B) {
	text := bytes.Repeat([]byte(`{"id":1234,"name":"a name","tags":["x","y"],"price":12.5},`), 300)
	for c := zstandard; c < codings; c++ {
		b.Run(codingNames[c], func(b *testing.B) {
			coders := new(Coders)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				w := coded{coders, c, 0}.ResponseBody(nil, &sink{})
				w.Write(text)
				w.Close()
			}
		})
	}
}

// A page of numbers repeats little: only the codes of its few letters make it shorter.
func TestEachCodingShortensTextThatRepeatsNothing(t *testing.T) {
	var text []byte
	for i := range 10_000 {
		text = append(strconv.AppendInt(text, int64(i), 10), '\n')
	}
	var coders Coders
	for c := zstandard; c < codings; c++ {
		var out sink
		w := coders.open(c, 0, &out)
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if out.Len() > len(text)*6/10 {
			t.Errorf("%s: %d bytes become %d", codingNames[c], len(text), out.Len())
		}
	}
}
