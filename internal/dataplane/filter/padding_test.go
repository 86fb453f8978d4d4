package filter

import (
	"io"
	"strings"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// packed returns what becomes of the parts of an answer, flushed one after the other, with so many
// bytes of padding.
func packed(t *testing.T, coders *Coders, c coding, pad int, parts ...string) []byte {
	t.Helper()
	out := &sink{}
	p := coders.open(c, 0, out)
	p.pad = pad
	p.padHead()
	for i, part := range parts {
		if _, err := io.WriteString(p, part); err != nil {
			t.Fatal(err)
		}
		if i < len(parts)-1 {
			if err := p.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Close(); err != nil || out.closed != 1 {
		t.Fatalf("Close = %v, closed %d times", err, out.closed)
	}
	return out.Bytes()
}

// G4: who decodes an answer finds nothing of its padding.
func TestG4PaddedAnswersAreTheSame(t *testing.T) {
	coders := new(Coders)
	for c := zstandard; c < codings; c++ {
		for _, parts := range [][]string{{"x"}, {strings.Repeat("all work and no play ", 10_000)}, {"data: 1\n\n", "data: 2\n\n", ""}, {}} {
			plain := packed(t, coders, c, 0, parts...)
			for _, pad := range []int{1, 2, 63, 64, 255, 256} {
				b := packed(t, coders, c, pad, parts...)
				got, err := io.ReadAll(unpacker(t, c, b))
				if want := strings.Join(parts, ""); string(got) != want || err != nil {
					t.Errorf("%s, %d bytes of padding: %d bytes come out, want %d (%v)", codingNames[c], pad, len(got), len(want), err)
				}
				if n := len(b) - len(plain); n < pad || n > pad+12 {
					t.Errorf("%s, %d bytes of padding: %d bytes more", codingNames[c], pad, n)
				}
			}
			if again := packed(t, coders, c, 0, parts...); len(again) != len(plain) {
				t.Errorf("%s: a padding is still there for the next answer: %d bytes, want %d", codingNames[c], len(again), len(plain))
			}
		}
	}
}

// G4: the same answer has every length up to the padding that is asked for, none more than that, and
// one alone without it.
func TestG4PaddingHidesTheLength(t *testing.T) {
	const most, rounds = 16, 2000
	for c := zstandard; c < codings; c++ {
		for pad, want := range map[int]int{0: 1, most: most + 1} {
			s, err := New([]*config.Policy{{Compress: &config.Compress{Types: []string{"text/*"}, With: []string{codingNames[c]}, Padding: config.Size(pad)}}}, Env{Coders: new(Coders)})
			if err != nil {
				t.Fatal(err)
			}
			seen := map[int]bool{}
			for range rounds {
				x := &dataplane.Exchange{
					Request:  dataplane.Request{Header: fields("Accept-Encoding: " + codingNames[c])},
					Response: dataplane.Response{Status: 200, Length: 100, Header: fields("Content-Type: text/html")},
				}
				s.Response[0].Response(x)
				out := &sink{}
				w := x.Filters[0].ResponseBody(x, out)
				io.WriteString(w, "token=secret&guess=secreu")
				w.Close()
				seen[out.Len()] = true
			}
			if len(seen) != want {
				t.Errorf("%s, padding %d: %d lengths, want %d", codingNames[c], pad, len(seen), want)
			}
		}
	}
	if n := draw(1 << 20); n > maxPadding {
		t.Errorf("%d bytes are drawn, and there is room for %d", n, maxPadding)
	}
}
