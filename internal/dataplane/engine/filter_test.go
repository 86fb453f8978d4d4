package engine

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing/iotest"

	"proxyd/internal/dataplane"
)

// errFilter is what a filter that fails says.
var errFilter = errors.New("the filter does not like it")

// A testFilter changes every byte of both bodies with each.
type testFilter struct {
	each  func([]byte) []byte
	grows bool // the length is not kept
	holds bool // the answer's is held back until it is flushed or closed
	fails bool // at a "!"
}

// setFilter puts f before the bodies of the stage's exchanges.
func (s *stage) setFilter(f testFilter) {
	s.route.Heavy = true
	s.filter = &f
}

// doubled returns each byte twice.
func doubled(p []byte) []byte {
	var out []byte
	for _, b := range p {
		out = append(out, b, b)
	}
	return out
}

func (f *testFilter) RequestBody(_ *dataplane.Exchange, r io.Reader) (io.Reader, error) {
	return &testReader{f: f, r: r}, nil
}

func (f *testFilter) ResponseBody(x *dataplane.Exchange, w io.WriteCloser) io.WriteCloser {
	if x.Response.Status == 204 {
		return w
	}
	return &testWriter{f: f, w: w}
}

type testReader struct {
	f    *testFilter
	r    io.Reader
	rest []byte
	err  error
}

func (r *testReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		buf := make([]byte, 4096)
		var n int
		n, r.err = r.r.Read(buf)
		if r.f.fails && bytes.IndexByte(buf[:n], '!') >= 0 {
			n, r.err = 0, errFilter
		}
		r.rest = r.f.each(buf[:n])
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

type testWriter struct {
	f    *testFilter
	w    io.WriteCloser
	held []byte
}

func (w *testWriter) Write(p []byte) (int, error) {
	if w.f.fails && bytes.IndexByte(p, '!') >= 0 {
		return 0, errFilter
	}
	w.held = append(w.held, w.f.each(p)...)
	if w.f.holds {
		return len(p), nil
	}
	return len(p), w.Flush()
}

func (w *testWriter) Flush() error {
	_, err := w.w.Write(w.held)
	w.held = nil
	return err
}

func (w *testWriter) Close() error {
	if err := w.Flush(); err != nil {
		w.w.Close()
		return err
	}
	return w.w.Close()
}

// open answers with a file or a reader: the path says which.
func (s *stage) open(x *dataplane.Exchange) dataplane.Verdict {
	r := &x.Response
	r.Reset()
	r.Status, r.Length = 200, -1
	section := func(content string, from, size int64) {
		name := filepath.Join(s.t.TempDir(), "file")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			s.t.Error(err)
		}
		f, err := os.Open(name)
		if err != nil {
			s.t.Error(err)
		}
		r.File = &dataplane.FileSection{File: f, From: from, Size: size}
	}
	switch string(x.Request.Path) {
	case "/file":
		section(strings.Repeat("0123456789", 10000), 5, 60000)
	case "/small-file":
		section("0123456789", 2, 5)
	case "/short-file":
		section(strings.Repeat("x", 30000), 0, 40000)
	case "/sized":
		r.Read, r.Length = io.NopCloser(iotest.OneByteReader(strings.NewReader("sized"))), 5
	case "/stream":
		r.Read = io.NopCloser(io.MultiReader(strings.NewReader("one"), strings.NewReader("two")))
	case "/torn":
		r.Read = io.NopCloser(io.MultiReader(strings.NewReader("one"), iotest.ErrReader(errFilter)))
	}
	return dataplane.Answer
}
