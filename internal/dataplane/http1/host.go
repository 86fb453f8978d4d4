package http1

import (
	"bytes"
	"net/netip"

	"proxyd/internal/dataplane"
)

// authority reads a host with an optional port (RFC 3986, 3.2, without user
// information) into r.Host and r.Port in canonical form (B6): lower case, no trailing
// dot, an IPv6 address as RFC 5952 writes it, the port without leading zeros.
func authority(r *dataplane.Request, b []byte) error {
	end := bytes.IndexByte(b, ':')
	if len(b) > 0 && b[0] == '[' {
		end = bytes.IndexByte(b, ']') + 1
		if end == 0 {
			return malformed(400, "host", "open bracket")
		}
	}
	if end < 0 {
		end = len(b)
	}
	host, port := b[:end:end], b[end:]
	if len(port) > 0 && port[0] != ':' {
		return malformed(400, "host", "octets after the address")
	}
	port, ok := canonicalPort(port)
	if !ok {
		return malformed(400, "host", "port")
	}
	r.Port = port
	if len(host) > 0 && host[0] == '[' {
		return ipv6Host(r, host)
	}
	return nameHost(r, host)
}

// canonicalPort reads ":digits", or nothing, or a colon alone, which means nothing.
func canonicalPort(b []byte) (port []byte, ok bool) {
	if len(b) <= 1 {
		return nil, true
	}
	port = b[1:]
	if len(port) > 5 {
		return nil, false
	}
	n, ok := number(port)
	if !ok || n > 65535 {
		return nil, false
	}
	for len(port) > 1 && port[0] == '0' {
		port = port[1:]
	}
	return port, true
}

// nameHost reads a registered name or an IPv4 address: labels of letters, digits, "-"
// and "_". What else RFC 3986 lets a name have, DNS does not.
func nameHost(r *dataplane.Request, host []byte) error {
	const longestName, longestLabel = 253, 63
	label, capitals := 0, false
	for _, c := range host {
		switch {
		case is(c, hostChar):
			label++
			capitals = capitals || 'A' <= c && c <= 'Z'
			if label > longestLabel {
				return malformed(400, "host", "long label")
			}
		case c == '.' && label > 0:
			label = 0
		default:
			return malformed(400, "host", "not a name")
		}
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[: n-1 : n-1]
	}
	if len(host) == 0 || len(host) > longestName {
		return malformed(400, "host", "empty or long")
	}
	if capitals {
		from := len(r.Text)
		for _, c := range host {
			r.Text = append(r.Text, lower(c))
		}
		host = r.Text[from:len(r.Text):len(r.Text)]
	}
	r.Host = host
	return nil
}

// ipv6Host reads an address in brackets.
func ipv6Host(r *dataplane.Request, host []byte) error {
	a, err := netip.ParseAddr(string(host[1 : len(host)-1]))
	if err != nil || !a.Is6() || a.Zone() != "" {
		return malformed(400, "host", "not an IPv6 address")
	}
	from := len(r.Text)
	r.Text = append(r.Text, '[')
	r.Text = a.AppendTo(r.Text)
	r.Text = append(r.Text, ']')
	r.Host = r.Text[from:len(r.Text):len(r.Text)]
	return nil
}
