package upstream

import (
	"net/netip"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func TestWhatAHashIsOf(t *testing.T) {
	const one, other = "192.0.2.1", "2001:db8::1"
	ask := func(path, query string, fields ...string) *dataplane.Request {
		q := &dataplane.Request{Path: []byte(path)}
		if query != "" {
			q.Query = []byte(query)
		}
		for i := 0; i < len(fields); i += 2 {
			id := dataplane.Other
			if fields[i] == "Cookie" {
				id = dataplane.Cookie
			}
			q.Header.Add(id, []byte(fields[i]), []byte(fields[i+1]))
		}
		return q
	}
	type request struct {
		*dataplane.Request
		from string
	}
	for _, c := range []struct {
		key, story string
		a, b       request
		same       bool
	}{
		{"ip", "one client, other things", request{ask("/a", ""), one}, request{ask("/b", "q", "X-Key", "1"), one}, true},
		{"ip", "two clients", request{ask("/a", ""), one}, request{ask("/a", ""), other}, false},
		{"ip", "one client, written in two ways", request{ask("/a", ""), one}, request{ask("/a", ""), "::ffff:192.0.2.1"}, true},
		{"uri", "one URI, two clients", request{ask("/a", "q=1"), one}, request{ask("/a", "q=1"), other}, true},
		{"uri", "two paths", request{ask("/a", ""), one}, request{ask("/b", ""), one}, false},
		{"uri", "two queries", request{ask("/a", "q=1"), one}, request{ask("/a", "q=2"), one}, false},
		{"uri", "a query, and none", request{ask("/a", "q=1"), one}, request{ask("/a", ""), one}, false},
		{"header:X-Key", "one value, two clients", request{ask("/a", "", "x-key", "1"), one}, request{ask("/b", "", "X-Key", "1"), other}, true},
		{"header:X-Key", "two values", request{ask("/a", "", "X-Key", "1"), one}, request{ask("/a", "", "X-Key", "2"), one}, false},
		{"header:X-Key", "none, one client", request{ask("/a", ""), one}, request{ask("/b", ""), one}, true},
		{"header:X-Key", "none, two clients", request{ask("/a", ""), one}, request{ask("/a", ""), other}, false},
		{"cookie:k", "one value among others, two clients", request{ask("/a", "", "Cookie", "a=9; k=1; kk=7"), one}, request{ask("/b", "", "Cookie", "k=1"), other}, true},
		{"cookie:k", "in the second field", request{ask("/a", "", "Cookie", "a=9", "Cookie", "k=1"), one}, request{ask("/a", "", "Cookie", "k=1"), other}, true},
		{"cookie:k", "two values", request{ask("/a", "", "Cookie", "k=1"), one}, request{ask("/a", "", "Cookie", "k=2"), one}, false},
		{"cookie:k", "another cookie, two clients", request{ask("/a", "", "Cookie", "kk=1"), one}, request{ask("/a", "", "Cookie", "kk=1"), other}, false},
	} {
		key, err := newHashKey(&config.Pool{Balance: "hash", HashKey: c.key})
		if err != nil {
			t.Fatalf("%s: %v", c.key, err)
		}
		p := &Pool{hash: key}
		a, b := p.Hash(c.a.Request, netip.MustParseAddr(c.a.from)), p.Hash(c.b.Request, netip.MustParseAddr(c.b.from))
		if (a == b) != c.same {
			t.Errorf("%s, %s: %x and %x", c.key, c.story, a, b)
		}
	}
}
