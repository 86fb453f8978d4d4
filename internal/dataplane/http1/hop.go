package http1

import (
	"bytes"

	"proxyd/internal/dataplane"
)

// StripHop removes from h, in place, what belongs to one connection alone: the fields of
// RFC 9110, 7.6.1, those of a proxy's own authentication (11.7: we are the origin as far
// as the client can tell), and those that Connection names. nominated is whether it
// names any, as the parser found. keepUpgrade keeps Upgrade, for a caller who then adds
// "Connection: upgrade".
//
// It runs before anything is added, so that a sender cannot name away what we add (B2).
// Host, Expect and what frames the message cannot be named away at all.
func StripHop(h *dataplane.Header, nominated, keepUpgrade bool) {
	var named [maxNominated][]byte
	n := 0
	if nominated {
		for _, f := range *h {
			if f.ID == dataplane.Connection {
				n += nominations(f.Value, named[n:])
			}
		}
	}
	out := (*h)[:0]
	for _, f := range *h {
		switch f.ID {
		case dataplane.Connection, dataplane.KeepAlive, dataplane.ProxyConnection, dataplane.TE, dataplane.Trailer,
			dataplane.HTTP2Settings, dataplane.ProxyAuthenticate, dataplane.ProxyAuthorization:
			continue
		case dataplane.Upgrade:
			if !keepUpgrade {
				continue
			}
		case dataplane.Host, dataplane.Expect, dataplane.ContentLength, dataplane.TransferEncoding:
		default:
			if n > 0 && isNamed(named[:n], f.Name) {
				continue
			}
		}
		out = append(out, f)
	}
	*h = out
}

// nominations puts the fields that a value of Connection names into room and returns how
// many they are. The parser has refused more than there is room for.
func nominations(value []byte, room [][]byte) (n int) {
	for len(value) > 0 && n < len(room) {
		var option []byte
		option, value = member(value)
		switch {
		case len(option) == 0, same(option, "close"), same(option, "keep-alive"), same(option, "upgrade"):
		default:
			room[n] = option
			n++
		}
	}
	return n
}

func isNamed(names [][]byte, name []byte) bool {
	for _, n := range names {
		if len(n) == len(name) && bytes.EqualFold(n, name) {
			return true
		}
	}
	return false
}
