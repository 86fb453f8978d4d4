package http1

import (
	"bytes"

	"proxyd/internal/dataplane"
)

// StripHop removes from h, in place, what belongs to one connection alone: the fields of
// RFC 9110, 7.6.1, and those that Connection names. nominated is whether it names any,
// as the parser found. keepUpgrade leaves Connection's upgrade to the caller, who writes
// "Connection: upgrade" and keeps Upgrade.
//
// It runs before anything is added, so that a sender cannot name away what we add (B2).
// Framing fields and Host cannot be named away.
func StripHop(h *dataplane.Header, nominated, keepUpgrade bool) {
	in := *h
	out := in[:0]
	var named [16][]byte
	names := named[:0]
	if nominated {
		for i := range in {
			if in[i].ID == dataplane.Connection {
				eachToken(in[i].Value, func(t []byte) { names = append(names, t) })
			}
		}
	}
	for i := range in {
		f := in[i]
		switch f.ID {
		case dataplane.Connection, dataplane.KeepAlive, dataplane.ProxyConnection, dataplane.TE, dataplane.Trailer,
			dataplane.HTTP2Settings, dataplane.ProxyAuthenticate, dataplane.ProxyAuthorization:
			continue
		case dataplane.Upgrade:
			if !keepUpgrade {
				continue
			}
		case dataplane.Host, dataplane.ContentLength, dataplane.TransferEncoding:
		default:
			if isNamed(names, f.Name) {
				continue
			}
		}
		out = append(out, f)
	}
	*h = out
}

func isNamed(names [][]byte, name []byte) bool {
	for _, n := range names {
		if bytes.EqualFold(n, name) {
			return true
		}
	}
	return false
}
