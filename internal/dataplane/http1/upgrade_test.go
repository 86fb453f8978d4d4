package http1

import (
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

const handshake = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func TestWebSocketHandshakeIsRecognised(t *testing.T) {
	r, n, err := parse(handshake)
	if n != len(handshake) || err != nil || !r.WebSocket {
		t.Fatalf("ParseRequest = %d, %v, WebSocket %v", n, err, r.WebSocket)
	}
}

// What is no whole handshake is an ordinary request: its Upgrade is dropped later.
func TestS11HalfAnUpgradeIsNone(t *testing.T) {
	for name, change := range map[string][2]string{
		"POST":                    {"GET /chat", "POST /chat"},
		"HTTP/1.0":                {"HTTP/1.1", "HTTP/1.0"},
		"with a body":             {"Host: a\r\n", "Host: a\r\nContent-Length: 1\r\n"},
		"with a chunked body":     {"Host: a\r\n", "Host: a\r\nTransfer-Encoding: chunked\r\n"},
		"no Connection: upgrade":  {"keep-alive, Upgrade", "keep-alive"},
		"no Upgrade":              {"Upgrade: WebSocket\r\n", ""},
		"Upgrade: h2c":            {"Upgrade: WebSocket", "Upgrade: h2c"},
		"G2 h2c as well":          {"Upgrade: WebSocket", "Upgrade: websocket, h2c"},
		"G2 h2c in a second line": {"Upgrade: WebSocket", "Upgrade: websocket\r\nUpgrade: h2c"},
		"no version":              {"Sec-WebSocket-Version: 13\r\n", ""},
		"version 8":               {"Version: 13", "Version: 8"},
		"two versions":            {"Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"},
		"no key":                  {"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""},
		"short key":               {"dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBs"},
		"key of 17 octets":        {"dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQE="},
		"key not base64":          {"dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q=="},
		"two keys":                {"Host: a\r\n", "Host: a\r\nSec-WebSocket-Key: AAAAIHNhbXBsZSBub25jZQ==\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			in := strings.Replace(handshake, change[0], change[1], 1)
			r, n, err := parse(in)
			if in == handshake || n != len(in) || err != nil || r.WebSocket {
				t.Errorf("ParseRequest(%q) = %d, %v, WebSocket %v; want an ordinary request", in, n, err, r.WebSocket)
			}
		})
	}
}

// There is a tunnel only when the server agrees in every respect.
func TestG1AcceptsWebSocket(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ==" // the example of RFC 6455, 1.3
	const agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	for name, c := range map[string]struct {
		from, to string
		want     bool
	}{
		"agreed":                  {"", "", true},
		"426":                     {"101 Switching Protocols", "426 Upgrade Required", false},
		"200":                     {"101 Switching Protocols", "200 OK", false},
		"another protocol":        {"Upgrade: websocket", "Upgrade: h2c", false},
		"no Upgrade":              {"Upgrade: websocket\r\n", "", false},
		"no Connection":           {"Connection: Upgrade\r\n", "", false},
		"Connection: close":       {"Connection: Upgrade", "Connection: close", false},
		"no accept":               {"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "", false},
		"accept of another key":   {"s3pP", "S3pP", false},
		"accept said once more":   {"Upgrade: websocket\r\n", "Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n", false},
		"another upgrade besides": {"Upgrade: websocket\r\n", "Upgrade: websocket\r\nUpgrade: h2c\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			var r dataplane.Response
			in := strings.Replace(agreed, c.from, c.to, 1)
			n, err := ParseResponse([]byte(in), &r, false, wide)
			if n != len(in) || err != nil {
				t.Fatalf("ParseResponse = %d, %v", n, err)
			}
			if got := AcceptsWebSocket(&r, []byte(key)); got != c.want {
				t.Errorf("AcceptsWebSocket(%q) = %v, want %v", in, got, c.want)
			}
		})
	}
}

func TestAcceptKey(t *testing.T) {
	// The example of RFC 6455, 1.3.
	if got := AcceptKey([]byte("dGhlIHNhbXBsZSBub25jZQ==")); string(got[:]) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("AcceptKey = %s", got)
	}
}
