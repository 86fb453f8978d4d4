package http1

import (
	"errors"
	"testing"

	"proxyd/internal/dataplane"
)

func TestA11RefusedResponses(t *testing.T) {
	for name, in := range map[string]string{
		"length and chunked":  "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
		"two lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
		"nought and chunked":  "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"nought and a length": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n",
		"folded line":         "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
		"bare LF":             "HTTP/1.1 200 OK\nA: b\r\n\r\n",
		"bare LF in fields":   "HTTP/1.1 200 OK\r\nA: b\n\r\n",
		"other coding":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"chunked in 1.0":      "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"no status":           "HTTP/1.1 OK 200\r\n\r\n",
		"two digits":          "HTTP/1.1 20 OK\r\n\r\n\r\n",
		"four digits":         "HTTP/1.1 2000 OK\r\n\r\n",
		"status 099":          "HTTP/1.1 099 OK\r\n\r\n",
		"version":             "HTTP/2.0 200 OK\r\n\r\n",
		"garbage":             "SSH-2.0-OpenSSH_9.2\r\n",
		"no line end":         "HTTP/1.1 200\n\n",
		"no colon":            "HTTP/1.1 200 OK\r\nA\r\n\r\n",
		"100 with a body":     "HTTP/1.1 100 Continue\r\nContent-Length: 7\r\n\r\n",
		"101 with chunks":     "HTTP/1.1 101 Switching Protocols\r\nTransfer-Encoding: chunked\r\n\r\n",
		"control in reason":   "HTTP/1.1 200 O\x00K\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var r dataplane.Response
			n, err := ParseResponse([]byte(in), &r, false, wide)
			var m *dataplane.Malformed
			if n != 0 || !errors.As(err, &m) || m.Status != 502 {
				t.Errorf("ParseResponse = %d, %v; want it refused with 502", n, err)
			}
		})
	}
}

// RFC 9112, 6.3: how long the body of an answer is.
func TestResponseLength(t *testing.T) {
	for name, c := range map[string]struct {
		in      string
		head    bool
		length  int64
		chunked bool
		nobody  bool
		close   bool
	}{
		"length":          {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", false, 4, false, false, false},
		"chunked":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, -1, true, false, false},
		"until close":     {"HTTP/1.1 200 OK\r\n\r\n", false, -1, false, false, true},
		"no reason":       {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, 0, false, false, false},
		"HEAD":            {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", true, 4, false, true, false},
		"204":             {"HTTP/1.1 204 No Content\r\n\r\n", false, -1, false, true, false},
		"204 overlong":    {"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", false, 9, false, true, true},
		"204 chunked":     {"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", false, -1, false, true, true},
		"HEAD chunked":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, -1, false, true, false},
		"101 of length 0": {"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n", false, 0, false, true, false},
		"304":             {"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", false, 4, false, true, false},
		"100":             {"HTTP/1.1 100 Continue\r\n\r\n", false, -1, false, true, false},
		"close":           {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n", false, 4, false, false, true},
		"1.0":             {"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n", false, 4, false, false, true},
		"1.0 kept":        {"HTTP/1.0 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\n", false, 4, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			var r dataplane.Response
			n, err := ParseResponse([]byte(c.in), &r, c.head, wide)
			if n != len(c.in) || err != nil || r.Length != c.length || r.Chunked != c.chunked || r.NoBody != c.nobody || r.Close != c.close {
				t.Errorf("ParseResponse = %d, %v, length %d chunked %v nobody %v close %v", n, err, r.Length, r.Chunked, r.NoBody, r.Close)
			}
		})
	}
}

func TestResponseInPieces(t *testing.T) {
	const text = "HTTP/1.1 200 Fine\r\nA: b\r\nContent-Length: 4\r\n\r\n"
	for i := range len(text) {
		var r dataplane.Response
		if n, err := ParseResponse([]byte(text[:i]), &r, false, wide); n != 0 || err != nil {
			t.Fatalf("ParseResponse(%q) = %d, %v; want not complete", text[:i], n, err)
		}
	}
}

// Only clients are suspected of meaning a hyphen by an underscore (B4).
func TestUnderscoreInAnswerStays(t *testing.T) {
	var r dataplane.Response
	n, err := ParseResponse([]byte("HTTP/1.1 200 OK\r\nX_Y: z\r\n\r\n"), &r, false, wide)
	if n == 0 || err != nil || string(r.Header.Find("X_Y")) != "z" {
		t.Errorf("ParseResponse = %d, %v, header %q", n, err, r.Header)
	}
}

func TestFramingIsWrittenFromWhatWasRead(t *testing.T) {
	r := dataplane.Response{Status: 200, Length: -1}
	if got := string(AppendResponse(nil, &r, ResponseOptions{Minor: 1, KeepAlive: true})); got != "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" {
		t.Errorf("unknown length to HTTP/1.1: %q", got)
	}
	if got := string(AppendResponse(nil, &r, ResponseOptions{Minor: 0})); got != "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" {
		t.Errorf("unknown length to HTTP/1.0: %q", got)
	}
	r.Length = 3
	if got := string(AppendResponse(nil, &r, ResponseOptions{Minor: 0, KeepAlive: true, Date: []byte("now")})); got != "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n" {
		t.Errorf("known length to HTTP/1.0: %q", got)
	}
}
