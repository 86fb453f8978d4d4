package http1

import (
	"io"
	"net/http/httputil"
	"strings"
	"testing"
)

// decode reads a chunked body in pieces of size bytes and returns its data and how
// much of in was read.
func decode(in string, size int) (data string, n int, done bool, err error) {
	var c ChunkReader
	var out strings.Builder
	for n < len(in) && !done {
		piece := []byte(in[n:min(len(in), n+size)])
		for len(piece) > 0 && !done {
			var d []byte
			var k int
			d, k, done, err = c.Next(piece)
			out.Write(d)
			n += k
			if err != nil {
				return out.String(), n, false, err
			}
			piece = piece[k:]
		}
	}
	return out.String(), n, done, nil
}

func TestChunkedBodyInPieces(t *testing.T) {
	const in = "4;name=\"v\"\r\nWiki\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\nGET"
	for size := 1; size <= len(in); size++ {
		data, n, done, err := decode(in, size)
		if data != "Wiki0123456789" || n != len(in)-3 || !done || err != nil {
			t.Fatalf("in pieces of %d: %q, %d of %d read, done %v, %v", size, data, n, len(in), done, err)
		}
	}
}

func TestA4BadChunks(t *testing.T) {
	for _, in := range []string{
		"0x4\r\nWiki\r\n", "+4\r\n", "-1\r\n", "4_0\r\n", " 4\r\n", "4 \r\n", "\r\n", ";x\r\n", "g\r\n", "4\nWiki\r\n",
		"11111111111111111\r\n", "4\r\nWikiX\r\n", "4\r\nWiki\n", "4\r\nWiki\r\r\n", "4;a\nb\r\nWiki\r\n", "4;a\x00\r\nWiki\r\n",
		"4\r\rWiki\r\n", "0\r\n\rX", "0\r\nbad trailer\r\n\r\n", "0\r\n: x\r\n\r\n", "0\r\nA: b\n\r\n", "0\r\n A: b\r\n\r\n",
		"4;" + strings.Repeat("a", 300) + "\r\nWiki\r\n", "0\r\nA: " + strings.Repeat("b", 9000) + "\r\n\r\n",
	} {
		for _, size := range []int{1, len(in)} {
			if _, _, done, err := decode(in, size); err == nil {
				t.Errorf("%.40q in pieces of %d: done %v, no error", in, size, done)
			}
		}
	}
}

// What follows a body belongs to the next message.
func TestNothingIsReadPastTheEnd(t *testing.T) {
	var c ChunkReader
	if _, n, done, err := c.Next([]byte("0\r\n\r\nGET")); n != 5 || !done || err != nil {
		t.Fatalf("Next = %d, %v, %v", n, done, err)
	}
	if data, n, done, err := c.Next([]byte("GET")); len(data) != 0 || n != 0 || !done || err != nil {
		t.Errorf("Next after the end = %q, %d, %v, %v", data, n, done, err)
	}
}

func TestChunkHead(t *testing.T) {
	for n, want := range map[int]string{1: "1\r\n", 15: "f\r\n", 16: "10\r\n", 65536: "10000\r\n", 0x7abcdef: "7abcdef\r\n"} {
		if got := string(AppendChunkHead(nil, n)); got != want {
			t.Errorf("AppendChunkHead(%d) = %q, want %q", n, got, want)
		}
	}
}

// A body that comes in pieces is read as one that comes at once, and whatever is read
// to its end, net/http reads to the same data.
func FuzzChunk(f *testing.F) {
	f.Add("4;x\r\nWiki\r\n0\r\n\r\n", uint8(3))
	f.Add("0\r\nA: b\r\n\r\nGET", uint8(1))
	f.Fuzz(func(t *testing.T, in string, size uint8) {
		if size == 0 {
			size = 1
		}
		whole, n, done, err := decode(in, len(in)+1)
		data, m, fin, bad := decode(in, int(size))
		if whole != data || done != fin || (err == nil) != (bad == nil) || done && n != m {
			t.Fatalf("at once %q %d %v %v, in pieces of %d %q %d %v %v", whole, n, done, err, size, data, m, fin, bad)
		}
		if !done {
			return
		}
		std, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(in)))
		if err == nil && string(std) != whole {
			t.Errorf("%q is %q to us and %q to net/http", in, whole, std)
		}
	})
}

// What was moved past the reader is as if it had been read.
func TestSkippedDataIsNotLookedAt(t *testing.T) {
	var c ChunkReader
	if _, n, _, err := c.Next([]byte("a;x\r\n")); n != 5 || err != nil || c.Left() != 10 {
		t.Fatalf("Next = %d, %v, then %d left", n, err, c.Left())
	}
	if data, n, _, err := c.Next([]byte("0123")); string(data) != "0123" || n != 4 || err != nil || c.Left() != 6 {
		t.Fatalf("Next = %q, %d, %v, then %d left", data, n, err, c.Left())
	}
	c.Skip(6)
	if _, n, done, err := c.Next([]byte("\r\n0\r\n\r\n")); n != 7 || !done || err != nil || c.Left() != 0 {
		t.Errorf("after Skip: %d, %v, %v", n, done, err)
	}
}
