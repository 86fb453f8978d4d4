package proxy

import (
	"bytes"
	"net/netip"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

// A locator turns places that name a server of the pool into what the client asked for.
// Its zero value leaves all as it is.
type locator struct {
	pool   *upstream.Pool
	prefix []byte // strip_prefix, which servers do not know of; empty: there is none
}

func newLocator(pool *upstream.Pool, prefix string) locator {
	if pool.Config.Location == "keep" {
		return locator{}
	}
	return locator{pool, []byte(prefix)}
}

// rewrite changes the fields of an answer by which a client would find a server, or would
// miss what strip_prefix took off.
func (l *locator) rewrite(x *dataplane.Exchange) {
	if l.pool == nil {
		return
	}
	h := x.Response.Header
	for i := range h {
		switch f := &h[i]; f.ID {
		case dataplane.Location, dataplane.ContentLocation:
			f.Value = l.reference(x, f.Value)
		case dataplane.Refresh:
			f.Value = l.refresh(x, f.Value)
		case dataplane.SetCookie:
			f.Value = l.cookie(x, f.Value)
		}
	}
}

// reference returns what a URI reference becomes (RFC 3986, 4.1).
func (l *locator) reference(x *dataplane.Exchange, ref []byte) []byte {
	scheme, authority, rest := splitReference(ref)
	if authority == nil {
		if path := l.restore(x, rest); len(rest) > 0 && rest[0] == '/' && len(path) != len(rest) {
			return path
		}
		return ref
	}
	host, port := splitAuthority(authority)
	switch own := isOwn(x, host, port); {
	case own && len(l.prefix) == 0:
		return ref
	case own:
		return x.Keep(ref[:len(ref)-len(rest)], l.restore(x, rest))
	case !l.isServer(host, port):
		return ref
	case len(x.Mark.Authority) == 0: // HTTP/1.0 may name no host
		if len(rest) == 0 || rest[0] != '/' {
			return x.Keep(l.restore(x, slash), rest)
		}
		return x.Keep(l.restore(x, rest))
	case scheme == nil:
		return x.Keep(slashes, x.Mark.Authority, l.restore(x, rest))
	}
	return x.Keep(x.Mark.Scheme, schemeEnd, x.Mark.Authority, l.restore(x, rest))
}

var (
	slash     = []byte("/")
	slashes   = []byte("//")
	schemeEnd = []byte("://")
)

// restore puts the stripped prefix before a path, which may have a query behind it. A
// server that knows the prefix has put it there itself.
func (l *locator) restore(x *dataplane.Exchange, path []byte) []byte {
	p := l.prefix
	if len(p) == 0 || bytes.HasPrefix(path, p) && (len(path) == len(p) || bytes.IndexByte([]byte("/?#"), path[len(p)]) >= 0) {
		return path
	}
	return x.Keep(p, path)
}

// isOwn reports whether an authority is the one that the client asked for.
func isOwn(x *dataplane.Exchange, host, port []byte) bool {
	same := func(h, p []byte) bool {
		return bytes.EqualFold(host, h) && (bytes.Equal(port, p) || isDefaultPort(port) && isDefaultPort(p))
	}
	return same(x.Request.Host, x.Request.Port) || same(splitAuthority(x.Mark.Authority))
}

func isDefaultPort(port []byte) bool {
	return len(port) == 0 || string(port) == "80" || string(port) == "443"
}

// isServer reports whether an authority names a server of the pool: by its name, its
// address or the name that it is told for its own (host of the pool); with its port, or
// with that of a scheme or none, as a server writes that does not know its own.
func (l *locator) isServer(host, port []byte) bool {
	vague := isDefaultPort(port)
	addr := parseHost(host)
	for _, s := range l.pool.Servers() {
		h, p := splitAuthority([]byte(s.Name))
		at := s.Addr().Addr()
		if (vague || bytes.Equal(port, p)) &&
			(bytes.EqualFold(host, h) || addr.IsValid() && addr == at || at.IsLoopback() && bytes.EqualFold(host, []byte("localhost"))) {
			return true
		}
	}
	switch told := l.pool.Config.Host; told {
	case "", "client", "server":
		return false
	default:
		h, p := splitAuthority([]byte(told))
		return bytes.EqualFold(host, h) && (vague || bytes.Equal(port, p))
	}
}

// refresh is reference for the URL of a Refresh field: "5; url=/next".
func (l *locator) refresh(x *dataplane.Exchange, v []byte) []byte {
	sep := bytes.IndexAny(v, ";,")
	if sep < 0 {
		return v
	}
	at := sep + 1
	for at < len(v) && (v[at] == ' ' || v[at] == '\t') {
		at++
	}
	if len(v)-at >= 4 && bytes.EqualFold(v[at:at+3], []byte("url")) {
		eq := at + 3
		for eq < len(v) && v[eq] == ' ' {
			eq++
		}
		if eq < len(v) && v[eq] == '=' {
			for at = eq + 1; at < len(v) && v[at] == ' '; at++ {
			}
		}
	}
	end := len(v)
	if at < end && (v[at] == '"' || v[at] == '\'') {
		if close := bytes.IndexByte(v[at+1:], v[at]); close >= 0 {
			end = at + 1 + close
		}
		at++
	}
	return x.Keep(v[:at], l.reference(x, v[at:end]), v[end:])
}

// cookie rewrites Domain and Path of a Set-Cookie field. A __Host- cookie has neither of
// its own (RFC 6265bis, 4.1.3.2).
func (l *locator) cookie(x *dataplane.Exchange, v []byte) []byte {
	rest := v
	for at := 0; ; {
		semi := bytes.IndexByte(rest, ';')
		if semi < 0 {
			return v
		}
		at += semi + 1
		rest = v[at:]
		part, _, _ := bytes.Cut(rest, []byte(";"))
		name, value, ok := bytes.Cut(part, []byte("="))
		if !ok {
			continue
		}
		value = bytes.TrimSpace(value)
		var becomes []byte
		switch name = bytes.TrimSpace(name); {
		case bytes.EqualFold(name, []byte("domain")):
			becomes = l.domain(x, value)
		case bytes.EqualFold(name, []byte("path")) && len(l.prefix) > 0 && len(value) > 0 && value[0] == '/' && !isHostCookie(v):
			if becomes = l.restore(x, value); len(value) == 1 {
				becomes = l.prefix
			}
		default:
			continue
		}
		if bytes.Equal(becomes, value) {
			continue
		}
		v = x.Keep(v[:at], []byte(" "), name, []byte("="), becomes, rest[len(part):])
		rest = v[at:]
	}
}

func isHostCookie(v []byte) bool {
	const prefix = "__Host-"
	return len(v) >= len(prefix) && bytes.EqualFold(v[:len(prefix)], []byte(prefix))
}

// domain returns what the Domain of a cookie becomes.
func (l *locator) domain(x *dataplane.Exchange, value []byte) []byte {
	host, port := splitAuthority(bytes.TrimPrefix(value, []byte(".")))
	if len(port) > 0 || bytes.EqualFold(host, x.Request.Host) || !l.isServer(host, nil) {
		return value
	}
	asked, _ := splitAuthority(x.Mark.Authority)
	return asked
}

// splitReference cuts a URI reference. The authority is nil if there is none, the scheme
// if there is none or another than http and https. A backslash counts as a slash and the
// number of slashes does not matter behind a scheme, as browsers read it.
func splitReference(ref []byte) (scheme, authority, rest []byte) {
	isSlash := func(c byte) bool { return c == '/' || c == '\\' }
	at := 0
	for _, s := range [][]byte{schemeHTTPS, schemeHTTP} {
		if len(ref) > len(s) && ref[len(s)] == ':' && bytes.EqualFold(ref[:len(s)], s) {
			scheme, at = ref[:len(s)], len(s)+1
			break
		}
	}
	from := at
	for at < len(ref) && isSlash(ref[at]) {
		at++
	}
	if at-from < 2 && (scheme == nil || at == from) {
		return nil, nil, ref
	}
	end := at
	for end < len(ref) && !isSlash(ref[end]) && ref[end] != '?' && ref[end] != '#' {
		end++
	}
	if end == at {
		return nil, nil, ref
	}
	return scheme, ref[at:end:end], ref[end:]
}

// splitAuthority cuts an authority into its host, without brackets and closing dot, and
// its port. What stands before an @ is not the host, whatever it looks like.
func splitAuthority(a []byte) (host, port []byte) {
	a = a[bytes.LastIndexByte(a, '@')+1:]
	if len(a) > 0 && a[0] == '[' {
		end := bytes.IndexByte(a, ']')
		if end < 0 {
			return a, nil
		}
		host, a = a[1:end], a[end+1:]
		if len(a) > 0 && a[0] == ':' {
			port = a[1:]
		}
		return host, port
	}
	host = a
	if colon := bytes.IndexByte(a, ':'); colon >= 0 {
		host, port = a[:colon], a[colon+1:]
	}
	return bytes.TrimSuffix(host, []byte(".")), port
}

// parseHost returns the address that a host is, or the zero Addr.
func parseHost(host []byte) netip.Addr {
	if len(host) == 0 || len(host) > 64 || !('0' <= host[0] && host[0] <= '9') && bytes.IndexByte(host, ':') < 0 {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(string(host))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}
