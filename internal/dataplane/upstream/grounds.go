package upstream

import (
	"fmt"
	"net/netip"
	"time"

	"proxyd/internal/dataplane"
)

// Grounds tells by what Pick goes, besides the servers: what of a request is hashed, where the
// pool does that, with the hash as a part of 1; and what its cookie says, where clients are
// kept by one.
func (p *Pool) Grounds(q *dataplane.Request, client netip.Addr, now time.Time) (hash, cookie string) {
	if p.hash.on {
		hash = fmt.Sprintf("%.4f, of %s", float64(p.Hash(q, client)>>11)/(1<<53), p.hash.words(q, client))
	}
	if p.sticky != nil {
		cookie = p.sticky.words(q, now)
	}
	return hash, cookie
}

// words says what of a request is hashed.
func (k *hashKey) words(q *dataplane.Request, client netip.Addr) string {
	if k.of == nil {
		return "the client " + client.Unmap().String()
	}
	if _, found := k.of(k, q); !found {
		return fmt.Sprintf("the client %v, since there is no %s", client.Unmap(), k.text)
	}
	return k.text
}

// words says what the cookie of a request says.
func (y *sticky) words(q *dataplane.Request, now time.Time) string {
	value := cookie(q.Header, y.cookie)
	if value == nil {
		return y.cookie + " is absent"
	}
	switch at, _ := y.read(value, now); {
	case at == nil:
		return y.cookie + " counts for nothing: it is too old, not ours, or of a server that is gone"
	case !at.keeps(now):
		return y.cookie + " names " + at.Name + ", which is out"
	default:
		return y.cookie + " names " + at.Name
	}
}
