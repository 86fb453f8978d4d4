package http1

import (
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

// A sender of single bytes makes the parser read a few times the head's length, not its
// square.
func TestSlowHeadCostsNoSquare(t *testing.T) {
	head := "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 30000) + "\r\n\r\n"
	var s Scanner
	var r dataplane.Request
	read, n := 0, 0
	whole := []byte(head)
	for i := 1; i <= len(head) && n == 0; i++ {
		b := whole[:i]
		if !s.Ready(b, wide) {
			continue
		}
		read += len(b)
		r.Reset()
		var err error
		if n, err = ParseRequest(b, &r, wide); err != nil {
			t.Fatal(err)
		}
	}
	if n != len(head) || read > 3*len(head) {
		t.Errorf("a head of %d bytes was read to %d; %d bytes were parsed", len(head), n, read)
	}
}

// Garbage is refused before it has doubled, and what has no end at the limit.
func TestScannerWaitsForNoGarbage(t *testing.T) {
	for name, c := range map[string]struct {
		in string
		by int
	}{
		"TLS":          {"\x16\x03\x01" + strings.Repeat("\x00", 600), 1},
		"h2 preface":   {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 8},
		"SSH":          {"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", 40},
		"one word":     {strings.Repeat("A", 40000), 64},
		"long target":  {"GET /" + strings.Repeat("a", 40000), 16 << 10},
		"endless head": {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 99) + "Z: " + strings.Repeat("z", 40000), 32 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			var s Scanner
			whole := []byte(c.in)
			for i := 1; i <= len(c.in); i++ {
				b := whole[:i]
				if !s.Ready(b, wide) {
					continue
				}
				if _, err := ParseRequest(b, new(dataplane.Request), wide); err != nil {
					if i > c.by {
						t.Errorf("refused (%v) after %d bytes, want %d at most", err, i, c.by)
					}
					return
				}
			}
			t.Errorf("not refused in %d bytes", len(c.in))
		})
	}
}
