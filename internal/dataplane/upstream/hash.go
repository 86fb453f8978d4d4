package upstream

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// hashed follows a request's hash to its server, the same on every node. A server that is
// out, full, or has much more to do than the others passes its requests on, each to a
// place of its own, so that they spread over all others; nobody else's move.
//
// The table is made of the configuration alone. A server that starts slowly gets its own
// requests back hash by hash.
type hashed struct {
	slots []*slot // by name
	table maglev
	bound float64 // how many times its share of all exchanges a server may have; 0: any
}

// lightLoad is up to how many exchanges no server is overloaded, however little the
// others have to do.
const lightLoad = 16

// hashBound is how many times its share of all exchanges a server may have. Below it the
// chance of many clients with one server is small enough to leave them where they are.
const hashBound = 2

func newHashed(slots []*slot, bound float64) *hashed {
	r := &hashed{slots: slices.Clone(slots), bound: bound}
	slices.SortFunc(r.slots, func(a, b *slot) int { return cmp.Compare(a.Name, b.Name) })
	names, weights := make([]string, len(slots)), make([]int, len(slots))
	for i, s := range r.slots {
		names[i], weights[i] = s.Name, int(s.given/unit)
	}
	r.table = newMaglev(names, weights)
	return r
}

func (r *hashed) arrange() {}

func (r *hashed) choose(a Ask) *slot {
	const tries = 16
	last := 0
	for try := range tries {
		last = r.table.at(a.Hash, try)
		if s := r.slots[last]; s.admits(a.Hash) && !r.overloaded(s) && s.take(a) {
			return s
		}
	}
	return takeFrom(r.slots, uint64(last), a)
}

// admits reports whether a server that starts slowly has come to this hash.
func (s *slot) admits(hash uint64) bool {
	share := s.share.Load()
	return share >= unit || int32(mix(hash^hashText(s.Name))%unit) < share
}

// overloaded reports whether one more exchange would be more than the bound lets the
// server have (Mirrokni and others, 2016: consistent hashing with bounded loads).
func (r *hashed) overloaded(s *slot) bool {
	n := s.Active.Load() + 1
	if n <= lightLoad || r.bound == 0 {
		return false
	}
	all, weights := int64(1), int64(0)
	for _, o := range r.slots {
		if w := int64(o.weight.Load()); w > 0 {
			all += o.Active.Load()
			weights += w
		}
	}
	return float64(n) > math.Ceil(r.bound*float64(all)*float64(s.weight.Load())/float64(weights))
}

// A hashKey is what of a request a pool hashes.
type hashKey struct {
	of   func(k *hashKey, q *dataplane.Request) (hash uint64, found bool) // nil: nothing, or the client's address
	name string                                                           // of the field or cookie
	text string                                                           // what is hashed, in words
	on   bool
}

func newHashKey(c *config.Pool) (hashKey, error) {
	if c.Balance != "hash" {
		return hashKey{}, nil
	}
	kind, name, _ := strings.Cut(c.HashKey, ":")
	k := hashKey{name: name, on: true}
	switch kind {
	case "", "ip":
	case "uri":
		k.of, k.text = hashURI, "path and query"
	case "header":
		k.of, k.text = hashField, "header "+name
	case "cookie":
		k.of, k.text = hashCookie, "cookie "+name
	default:
		return k, fmt.Errorf("hash_key %q: want ip, uri, header:NAME or cookie:NAME", c.HashKey)
	}
	return k, nil
}

// Hash returns what balance = "hash" goes by: the same for the same client or thing on
// every node. A request that lacks the field or cookie is hashed by its client.
func (p *Pool) Hash(q *dataplane.Request, client netip.Addr) uint64 {
	k := &p.hash
	if !k.on {
		return 0
	}
	if k.of != nil {
		if h, found := k.of(k, q); found {
			return h
		}
	}
	return hashAddr(client)
}

func hashAddr(a netip.Addr) uint64 {
	b := a.Unmap().As16()
	return hashText(b[:])
}

func hashURI(_ *hashKey, q *dataplane.Request) (uint64, bool) {
	h := fold(fnvOffset, q.Path)
	if q.Query != nil {
		h = fold(fold(h, "?"), q.Query)
	}
	return mix(h), true
}

func hashField(k *hashKey, q *dataplane.Request) (uint64, bool) {
	v := q.Header.Find(k.name)
	return hashText(v), len(v) > 0
}

func hashCookie(k *hashKey, q *dataplane.Request) (uint64, bool) {
	v := cookie(q.Header, k.name)
	return hashText(v), len(v) > 0
}

// cookie returns the value of the first cookie with that name, or nil (RFC 6265, 5.4).
func cookie(h dataplane.Header, name string) []byte {
	for i := range h {
		if h[i].ID != dataplane.Cookie {
			continue
		}
		for rest := h[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			key, value, found := bytes.Cut(pair, []byte{'='})
			if found && string(bytes.TrimSpace(key)) == name {
				return bytes.TrimSpace(value)
			}
		}
	}
	return nil
}
