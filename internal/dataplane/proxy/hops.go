package proxy

import (
	"bytes"
	"net/netip"
)

// hops is a chain of addresses, the last hop first. It ends at the first thing from
// the right that is no address: what a client wrote there proves nothing.
type hops struct {
	addr [maxHops]netip.Addr
	n    int
	seen bool // there was such a field
	done bool // something was no address, or there were too many
}

func (c *hops) equal(d *hops) bool {
	if c.n != d.n {
		return false
	}
	for i := range c.n {
		if c.addr[i] != d.addr[i] {
			return false
		}
	}
	return true
}

func (c *hops) add(token []byte) {
	if c.done {
		return
	}
	a, ok := parseHop(token)
	if !ok || c.n == len(c.addr) {
		c.done = true
		return
	}
	c.addr[c.n] = a
	c.n++
}

// addList adds the addresses of an X-Forwarded-For line, from the right.
func (c *hops) addList(value []byte) {
	c.seen = true
	for {
		i := bytes.LastIndexByte(value, ',')
		c.add(bytes.TrimSpace(value[i+1:]))
		if i < 0 || c.done {
			return
		}
		value = value[:i]
	}
}

// An element is what the last element of Forwarded says besides the address.
type element struct{ host, proto []byte }

// addForwarded adds the addresses of a Forwarded line (RFC 7239, 4), from the right.
// Commas and semicolons within quotes separate nothing.
func (c *hops) addForwarded(value []byte, last *element) {
	first := !c.seen
	c.seen = true
	for {
		i := lastOutsideQuotes(value, ',')
		var hop []byte
		for rest := value[i+1:]; len(rest) > 0; {
			j := lastOutsideQuotes(rest, ';')
			name, v, _ := bytes.Cut(bytes.TrimSpace(rest[j+1:]), []byte("="))
			v = unquote(v)
			switch {
			case bytes.EqualFold(name, []byte("for")):
				hop = v
			case first && bytes.EqualFold(name, []byte("host")):
				last.host = v
			case first && bytes.EqualFold(name, []byte("proto")):
				last.proto = v
			}
			rest = rest[:max(j, 0)]
		}
		first = false
		c.add(hop)
		if i < 0 || c.done {
			return
		}
		value = value[:i]
	}
}

// lastOutsideQuotes returns where the last c is that no quotes enclose, or -1.
func lastOutsideQuotes(v []byte, c byte) int {
	quoted, last := false, -1
	for i := 0; i < len(v); i++ {
		switch {
		case v[i] == '"':
			quoted = !quoted
		case quoted && v[i] == '\\':
			i++
		case !quoted && v[i] == c:
			last = i
		}
	}
	return last
}

// unquote takes the quotes off. A value with a quoted pair holds no address, host or
// scheme, and stays what it is.
func unquote(v []byte) []byte {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}

// parseHop reads an address as proxies write it: bare, with a port, IPv6 with or
// without brackets.
func parseHop(token []byte) (netip.Addr, bool) {
	if len(token) == 0 || len(token) > 64 || bytes.IndexByte(token, '%') >= 0 {
		return netip.Addr{}, false
	}
	text := string(token)
	if token[0] == '[' {
		end := bytes.IndexByte(token, ']')
		if end < 0 || end+1 < len(token) && (token[end+1] != ':' || !isPort(token[end+2:])) {
			return netip.Addr{}, false
		}
		text = text[1:end]
	} else if i := bytes.IndexByte(token, ':'); i >= 0 && bytes.LastIndexByte(token, ':') == i {
		if !isPort(token[i+1:]) {
			return netip.Addr{}, false
		}
		text = text[:i]
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}
