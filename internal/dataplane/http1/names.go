package http1

import "proxyd/internal/dataplane"

// Identify finds the id of a field name.
func Identify(name []byte) dataplane.FieldID {
	if len(name) == 0 {
		return dataplane.Other
	}
	return identify(name)
}

// identify finds a field name, which is a token, among those that are known.
func identify(name []byte) dataplane.FieldID {
	if len(name) >= len(names) {
		return dataplane.Other
	}
	first := lower(name[0])
	known := names[len(name)]
	for i := range known {
		if known[i].name[0] == first && same(name, known[i].name) {
			return known[i].id
		}
	}
	return dataplane.Other
}

type knownName struct {
	name string // lower case
	id   dataplane.FieldID
}

// names are the known fields by the length of their name. It is read-only.
var names = func() (t [22][]knownName) {
	for _, k := range []knownName{
		{"te", dataplane.TE}, {"via", dataplane.Via},
		{"host", dataplane.Host}, {"date", dataplane.Date},
		{"proxy", dataplane.Proxy},
		{"expect", dataplane.Expect}, {"server", dataplane.ServerField}, {"cookie", dataplane.Cookie},
		{"upgrade", dataplane.Upgrade}, {"trailer", dataplane.Trailer}, {"referer", dataplane.Referer},
		{"location", dataplane.Location},
		{"forwarded", dataplane.Forwarded}, {"x-real-ip", dataplane.XRealIP},
		{"connection", dataplane.Connection}, {"keep-alive", dataplane.KeepAlive}, {"user-agent", dataplane.UserAgent},
		{"set-cookie", dataplane.SetCookie},
		{"refresh", dataplane.Refresh}, {"content-location", dataplane.ContentLocation},
		{"tracestate", dataplane.TraceState}, {"traceparent", dataplane.TraceParent}, {"x-request-id", dataplane.XRequestID},
		{"x-client-ip", dataplane.XForwarded}, {"x-forwarded", dataplane.XForwarded},
		{"authorization", dataplane.Authorization}, {"x-rewrite-url", dataplane.XForwarded},
		{"content-length", dataplane.ContentLength}, {"http2-settings", dataplane.HTTP2Settings},
		{"true-client-ip", dataplane.XForwarded}, {"x-original-url", dataplane.XForwarded},
		{"x-forwarded-for", dataplane.XForwardedFor}, {"x-forwarded-by", dataplane.XForwarded},
		{"x-original-host", dataplane.XForwarded},
		{"x-forwarded-host", dataplane.XForwardedHost}, {"x-forwarded-port", dataplane.XForwardedPort},
		{"proxy-connection", dataplane.ProxyConnection},
		{"transfer-encoding", dataplane.TransferEncoding}, {"x-forwarded-proto", dataplane.XForwardedProto},
		{"sec-websocket-key", dataplane.SecWebSocketKey},
		{"x-forwarded-server", dataplane.XForwarded}, {"x-forwarded-prefix", dataplane.XForwarded},
		{"x-forwarded-scheme", dataplane.XForwarded}, {"proxy-authenticate", dataplane.ProxyAuthenticate},
		{"proxy-authorization", dataplane.ProxyAuthorization}, {"x-cluster-client-ip", dataplane.XForwarded},
		{"sec-websocket-accept", dataplane.SecWebSocketAccept}, {"sec-websocket-version", dataplane.SecWebSocketVersion},
	} {
		t[len(k.name)] = append(t[len(k.name)], k)
	}
	return t
}()
