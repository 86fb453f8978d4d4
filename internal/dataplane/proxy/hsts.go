package proxy

import (
	"fmt"
	"time"

	"proxyd/internal/dataplane"
)

var nameHSTS = []byte("Strict-Transport-Security")

// hstsValue is what browsers are told for d (RFC 6797, 6.1); nil if they are told nothing.
func hstsValue(d time.Duration) []byte {
	if d <= 0 {
		return nil
	}
	return fmt.Appendf(nil, "max-age=%d", int64(d/time.Second))
}

// pledge has a client that asked by https do so from now on. What the server itself says
// about it stays (RFC 6797, 7.1: one field), and nobody is told in clear (7.2).
func (s *snapshot) pledge(x *dataplane.Exchange) {
	if s.hsts == nil || string(x.Mark.Scheme) != "https" || x.Response.Status == 101 {
		return
	}
	if h := &x.Response.Header; h.Find(string(nameHSTS)) == nil {
		h.Add(dataplane.Other, nameHSTS, s.hsts)
	}
}
