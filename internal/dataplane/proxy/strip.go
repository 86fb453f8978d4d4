package proxy

import "proxyd/internal/dataplane"

// stripHop stands in the way of fields of one hop (RFC 9110, 7.6.1).
func stripHop(h *dataplane.Header, keepUpgrade, nominated bool) {
	kept := (*h)[:0]
	for _, f := range *h {
		switch f.ID {
		case dataplane.Connection, dataplane.KeepAlive, dataplane.ProxyConnection, dataplane.ProxyAuthenticate,
			dataplane.ProxyAuthorization, dataplane.TE, dataplane.Trailer, dataplane.HTTP2Settings:
			continue
		case dataplane.Upgrade:
			if !keepUpgrade {
				continue
			}
		}
		kept = append(kept, f)
	}
	*h = kept
}
