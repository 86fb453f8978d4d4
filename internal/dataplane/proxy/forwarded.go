package proxy

import (
	"bytes"
	"net/netip"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

var (
	nameForwarded        = []byte("Forwarded")
	nameXForwardedFor    = []byte("X-Forwarded-For")
	nameXForwardedTo     = []byte("X-Forwarded-Host")
	nameXForwardedPort   = []byte("X-Forwarded-Port")
	nameXForwardedPrefix = []byte("X-Forwarded-Prefix")
	nameXForwardedBy     = []byte("X-Forwarded-Proto")
	nameXRealIP          = []byte("X-Real-IP")
	schemeHTTP           = []byte("http")
	schemeHTTPS          = []byte("https")
)

// maxHops is how many addresses of a chain are looked at. What lies further left is
// dropped.
const maxHops = 32

// An origin is what is known of where a request comes from, before this node.
type origin struct {
	chain  []byte // X-Forwarded-For to go on with, without the peer; empty: the peer is the client
	scheme []byte
	host   []byte // as the client asked for it, with its port
	port   []byte // that the client connected to
	prefix []byte // that a trusted proxy took off the path

	trusted bool // the peer is, so that what it says is believed
}

// origin finds the client and sets what x.Mark has of it. Only what a trusted proxy says is
// believed (B3): then the client is the first address from the right that is not
// trusted itself.
func (s *snapshot) origin(x *dataplane.Exchange) origin {
	peer := x.Client.Addr().Unmap()
	x.Mark.ClientIP = peer
	o := origin{scheme: schemeHTTP, host: clientHost(x), port: listenerPort(x)}
	if x.TLS != nil {
		o.scheme = schemeHTTPS
	}
	if o.trusted = s.trusts(peer); o.trusted {
		s.believe(x, &o)
	}
	x.Mark.Scheme, x.Mark.Authority = o.scheme, o.host
	return o
}

// believe takes over what the trusted peer says.
func (s *snapshot) believe(x *dataplane.Exchange, o *origin) {
	var plain, standard hops
	var said element
	h := x.Request.Header
	for i := len(h) - 1; i >= 0; i-- {
		switch h[i].ID {
		case dataplane.XForwardedFor:
			plain.addList(h[i].Value)
		case dataplane.Forwarded:
			standard.addForwarded(h[i].Value, &said)
		}
	}
	if plain.seen && standard.seen && !plain.equal(&standard) {
		return // they disagree: neither is believed
	}
	chain := &plain
	if !plain.seen {
		chain = &standard
	}
	for i := range chain.n { // from the right
		x.Mark.ClientIP = chain.addr[i]
		if !s.trusts(chain.addr[i]) {
			break
		}
	}
	from := len(x.Text)
	for i := chain.n - 1; i >= 0; i-- {
		x.Text = chain.addr[i].AppendTo(x.Text)
		if i > 0 {
			x.Text = append(x.Text, ", "...)
		}
	}
	o.chain = x.Text[from:len(x.Text):len(x.Text)]

	scheme, host := h.Get(dataplane.XForwardedProto), h.Get(dataplane.XForwardedHost)
	if scheme == nil {
		scheme = said.proto
	}
	if host == nil {
		host = said.host
	}
	switch {
	case bytes.EqualFold(scheme, schemeHTTP):
		o.scheme = schemeHTTP
	case bytes.EqualFold(scheme, schemeHTTPS):
		o.scheme = schemeHTTPS
	}
	if isHost(host) {
		o.host = host
	}
	if port := h.Get(dataplane.XForwardedPort); isPort(port) {
		o.port = port
	}
	if prefix := h.Find(string(nameXForwardedPrefix)); isPrefix(prefix) {
		o.prefix = prefix
	}
}

// tellsOfHops reports whether a field tells of former hops. All of them are removed,
// whoever sent them: what is true of them is added again (B3, S10), and Proxy (S14) never.
func tellsOfHops(f *dataplane.Field) bool {
	switch f.ID {
	case dataplane.Forwarded, dataplane.XForwarded, dataplane.XForwardedFor, dataplane.XForwardedProto,
		dataplane.XForwardedHost, dataplane.XForwardedPort, dataplane.XRealIP, dataplane.Proxy:
		return true
	case dataplane.Other:
		return inFamily(f.Name)
	}
	return false
}

// inFamily reports whether a name that the parser does not know begins X-Forwarded-.
func inFamily(name []byte) bool {
	const prefix = "x-forwarded-"
	return len(name) > len(prefix) && name[1] == '-' && bytes.EqualFold(name[:len(prefix)], nameXForwardedFor[:len(prefix)])
}

// addForwarded tells the server where the request comes from. It has no effect on what
// this node believes.
func (s *snapshot) addForwarded(x *dataplane.Exchange, o origin) {
	h := &x.Request.Header
	peer := x.Client.Addr().Unmap()
	text := keepAddr(x, peer)
	client, whole := text, text
	if len(o.chain) > 0 {
		client = keepAddr(x, x.Mark.ClientIP)
		whole = x.Keep(o.chain, comma, text)
	}
	h.Add(dataplane.XForwardedFor, nameXForwardedFor, whole)
	h.Add(dataplane.XRealIP, nameXRealIP, client)
	h.Add(dataplane.XForwardedProto, nameXForwardedBy, o.scheme)
	if len(o.host) > 0 {
		h.Add(dataplane.XForwardedHost, nameXForwardedTo, o.host)
	}
	h.Add(dataplane.XForwardedPort, nameXForwardedPort, o.port)
	h.Add(dataplane.Forwarded, nameForwarded, forwardedValue(x, whole, o))
}

// addPrefix tells the server what was taken off the path, by a trusted proxy before us and
// here.
func (r *compiledRoute) addPrefix(x *dataplane.Exchange, o origin) {
	prefix := o.prefix
	if r.rewrite != nil && len(r.rewrite.prefix) > 0 {
		prefix = x.Keep(prefix, r.rewrite.prefix)
	}
	if len(prefix) > 0 {
		x.Request.Header.Add(dataplane.XForwarded, nameXForwardedPrefix, prefix)
	}
}

// forwardedValue writes the same as RFC 7239, section 4, has it: an element for each
// address of the chain, and what is known of the request in the last.
func forwardedValue(x *dataplane.Exchange, chain []byte, o origin) []byte {
	from := len(x.Text)
	t := x.Text
	for {
		addr, rest, more := bytes.Cut(chain, comma)
		if bytes.IndexByte(addr, ':') >= 0 {
			t = append(append(append(t, `for="[`...), addr...), `]"`...)
		} else {
			t = append(append(t, "for="...), addr...)
		}
		if !more {
			break
		}
		t, chain = append(t, ", "...), rest
	}
	if len(o.host) > 0 {
		t = append(append(append(t, `;host="`...), o.host...), '"')
	}
	t = append(append(t, ";proto="...), o.scheme...)
	x.Text = t
	return t[from:len(t):len(t)]
}

var comma = []byte(", ")

func keepAddr(x *dataplane.Exchange, a netip.Addr) []byte {
	from := len(x.Text)
	x.Text = a.WithZone("").AppendTo(x.Text)
	return x.Text[from:len(x.Text):len(x.Text)]
}

// listenerPort returns the digits after the last colon of the listener's address.
func listenerPort(x *dataplane.Exchange) []byte {
	a := x.Listener.Address
	i := len(a)
	for i > 0 && '0' <= a[i-1] && a[i-1] <= '9' {
		i--
	}
	from := len(x.Text)
	x.Text = append(x.Text, a[i:]...)
	return x.Text[from:len(x.Text):len(x.Text)]
}

// isHost reports whether v may be a host with or without a port, and is safe to quote.
func isHost(v []byte) bool {
	for _, c := range v {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.' || c == '-' || c == '_' || c == ':' || c == '[' || c == ']':
		default:
			return false
		}
	}
	return len(v) > 0 && len(v) <= 261
}

// isPrefix reports whether v is a path in its normal form without a slash at its end.
func isPrefix(v []byte) bool {
	if len(v) < 2 || v[len(v)-1] == '/' || clean(v) != nil || bytes.ContainsAny(v, "?#") {
		return false
	}
	normal, err := http1.AppendPath(nil, v)
	return err == nil && bytes.Equal(normal, v)
}

func isPort(v []byte) bool {
	for _, c := range v {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(v) > 0 && len(v) <= 5
}
