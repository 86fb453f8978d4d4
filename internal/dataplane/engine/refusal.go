package engine

import "proxyd/internal/dataplane"

// Read-only: of an answer to what never became a request, where listeners tell (RFC 9209, 2.3.17).
var (
	nameProxyStatus = []byte("Proxy-Status")
	badRequest      = []byte("proxyd; error=http_request_error")
)

// refusal fills r with the answer to a request that is refused for its head.
func refusal(r *dataplane.Response, l *dataplane.Listener, m *dataplane.Malformed) {
	r.Reset()
	r.Status, r.Minor = m.Status, 1
	if l.ProxyStatus {
		r.Header.Add(dataplane.Other, nameProxyStatus, badRequest)
	}
}
