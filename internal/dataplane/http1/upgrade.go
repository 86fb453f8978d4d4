package http1

import (
	"crypto/sha1"
	"encoding/base64"

	"proxyd/internal/dataplane"
)

// asksWebSocket reports whether r, which has Connection: upgrade, is a good opening
// handshake (RFC 6455, 4.2.1). Upgrade must say websocket and nothing else: the field
// goes to the server as it is, and no other protocol may be offered there (S11, G2).
func asksWebSocket(r *dataplane.Request) bool {
	if r.Method != dataplane.GET || r.Minor != 1 || r.Chunked || r.Length > 0 {
		return false
	}
	upgrades, versions, keys := 0, 0, 0
	for i := range r.Header {
		switch v := r.Header[i].Value; r.Header[i].ID {
		case dataplane.Upgrade:
			upgrades++
			if !same(v, "websocket") {
				return false
			}
		case dataplane.SecWebSocketVersion:
			versions++
			if string(v) != "13" {
				return false
			}
		case dataplane.SecWebSocketKey:
			keys++
			if !isNonce(v) {
				return false
			}
		}
	}
	return upgrades == 1 && versions == 1 && keys == 1
}

// isNonce reports whether key is sixteen octets in base64.
func isNonce(key []byte) bool {
	var raw [18]byte
	if len(key) != 24 {
		return false
	}
	n, err := base64.StdEncoding.Strict().Decode(raw[:], key)
	return err == nil && n == 16
}

// AcceptKey is what a server must answer to Sec-WebSocket-Key (RFC 6455, 4.2.2).
func AcceptKey(key []byte) (accept [28]byte) {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	var text [24 + len(guid)]byte
	sum := sha1.Sum(append(append(text[:0], key...), guid...))
	base64.StdEncoding.Encode(accept[:], sum[:])
	return accept
}

// AcceptsWebSocket reports whether r, as parsed, agrees to the upgrade that a request
// with that Sec-WebSocket-Key asked for (RFC 6455, 4.1). Without that there is no
// tunnel, whatever the status says (G1).
func AcceptsWebSocket(r *dataplane.Response, key []byte) bool {
	if r.Status != 101 {
		return false
	}
	f := framing{length: -1}
	want := AcceptKey(key)
	upgrades, accepts := 0, 0
	for i := range r.Header {
		switch v := r.Header[i].Value; r.Header[i].ID {
		case dataplane.Connection:
			if f.connection(v) != nil {
				return false
			}
		case dataplane.Upgrade:
			upgrades++
			if !same(v, "websocket") {
				return false
			}
		case dataplane.SecWebSocketAccept:
			accepts++
			if string(v) != string(want[:]) {
				return false
			}
		}
	}
	return f.upgrade && upgrades == 1 && accepts == 1
}
