package http1

import (
	"bytes"
	"testing"
)

// trailersOf reads a chunked body byte by byte and returns its end as it is passed on.
func trailersOf(t *testing.T, body string, names ...string) string {
	t.Helper()
	r := ChunkReader{Keep: true}
	for i := range len(body) {
		if _, _, done, err := r.Next([]byte{body[i]}); err != nil {
			return err.Error()
		} else if done != (i == len(body)-1) {
			t.Fatalf("done at %d of %q", i, body)
		}
	}
	var list [][]byte
	for _, n := range names {
		list = append(list, []byte(n))
	}
	return string(AppendLastChunk(nil, r.Trailers, list))
}

func TestTrailersThatAreLetThrough(t *testing.T) { // A5, RFC 9110 6.5.1
	for _, c := range []struct{ why, body, want string }{
		{"none", "1\r\nx\r\n0\r\n\r\n", "0\r\n\r\n"},
		{"an allowed one, in any case", "0\r\nx-CHECKSUM:  abc \r\n\r\n", "0\r\nx-CHECKSUM: abc\r\n\r\n"},
		{"others are dropped", "0\r\nContent-Length: 5\r\nX-Checksum: a\r\nCookie: c\r\nX-Checksum2: b\r\n\r\n", "0\r\nX-Checksum: a\r\n\r\n"},
		{"two of one name", "0\r\nX-Checksum: a\r\nX-Checksum: b\r\n\r\n", "0\r\nX-Checksum: a\r\nX-Checksum: b\r\n\r\n"},
		{"an empty value", "0\r\nX-Checksum:\r\n\r\n", "0\r\nX-Checksum: \r\n\r\n"},
		{"a value beyond ASCII", "0\r\nX-Checksum: \xff\r\n\r\n", "0\r\n\r\n"},
		{"a folded line", "0\r\nX-Checksum: a\r\n b\r\n\r\n", "malformed: bad_chunk: trailer"},
		{"a space before the colon", "0\r\nX-Checksum : a\r\n\r\n", "malformed: bad_chunk: trailer"},
		{"a bare LF", "0\r\nX-Checksum: a\nCookie: b\r\n\r\n", "malformed: bad_chunk: trailer"},
		{"a NUL", "0\r\nX-Checksum: \x00\r\n\r\n", "malformed: bad_chunk: trailer"},
	} {
		if got := trailersOf(t, c.body, "x-checksum"); got != c.want {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
	}
}

func FuzzTrailers(f *testing.F) {
	f.Add([]byte("X-A: b\r\nContent-Length: 1\r\n\r\n"))
	f.Add([]byte("x-a:\t\xff\r\n\r\nGET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, section []byte) {
		r := ChunkReader{Keep: true}
		if _, _, done, err := r.Next(append([]byte("0\r\n"), section...)); err != nil || !done {
			return
		}
		out := AppendLastChunk(nil, r.Trailers, [][]byte{[]byte("x-a")})
		again := ChunkReader{Keep: true}
		_, n, done, err := again.Next(out)
		if err != nil || !done || n != len(out) {
			t.Fatalf("%q is passed on as %q: %v, %d bytes", section, out, err, n)
		}
		for line := range bytes.SplitSeq(bytes.TrimSuffix(again.Trailers, crlf), crlf) {
			if len(line) > 0 && !bytes.EqualFold(line[:4], []byte("x-a:")) {
				t.Errorf("%q lets %q through", section, line)
			}
		}
	})
}
