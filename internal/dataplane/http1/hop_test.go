package http1

import (
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

// left parses a request with the field lines and returns the names that StripHop leaves.
func left(t *testing.T, keepUpgrade bool, lines ...string) string {
	t.Helper()
	r, n, err := parse("POST / HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
	if n == 0 || err != nil {
		t.Fatal(n, err)
	}
	StripHop(&r.Header, r.Nominated, keepUpgrade)
	var names []string
	for _, f := range r.Header {
		names = append(names, string(f.Name))
	}
	return strings.Join(names, " ")
}

// RFC 9110, 7.6.1 and 11.7.
func TestFieldsOfOneHopAreStripped(t *testing.T) {
	got := left(t, false, "Host: a", "Connection: close", "Keep-Alive: 5", "Proxy-Connection: x", "TE: trailers", "Trailer: X",
		"HTTP2-Settings: AAA", "Proxy-Authorization: Basic eDp5", "Upgrade: h2c", "Accept: */*")
	if got != "Host Accept" {
		t.Errorf("left are %s", got)
	}
	if got := left(t, true, "Host: a", "Upgrade: websocket", "Connection: upgrade"); got != "Host Upgrade" {
		t.Errorf("with keepUpgrade left are %s", got)
	}
}

func TestB2NominatedFieldsAreStripped(t *testing.T) {
	got := left(t, false, "Host: a", "X-One: 1", "X-Two: 2", "Connection: x-one, ,close", "Connection: X-TWO", "X-Three: 3")
	if got != "Host X-Three" {
		t.Errorf("left are %s", got)
	}
}

// What the message would be read differently without cannot be named away.
func TestB2FramingCannotBeNamedAway(t *testing.T) {
	got := left(t, false, "Host: a", "Connection: host, content-length, transfer-encoding, expect", "Content-Length: 5", "Expect: 100-continue")
	if got != "Host Content-Length Expect" {
		t.Errorf("left are %s", got)
	}
}

func TestB2NominationsAreBounded(t *testing.T) {
	lines := "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("x,", maxNominated) + "close\r\n"
	if r, n, err := parse(lines + "\r\n"); n == 0 || err != nil || !r.Nominated || r.KeepAlive {
		t.Errorf("%d names: %d, %v", maxNominated, n, err)
	}
	_, _, err := parse(lines + "Connection: y\r\n\r\n")
	if m, ok := err.(*dataplane.Malformed); !ok || m.Reason != "connection" {
		t.Errorf("%d names: %v, want them refused", maxNominated+1, err)
	}
}
