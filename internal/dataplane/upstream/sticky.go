package upstream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"strconv"
	"sync"
	"time"

	"proxyd/internal/dataplane"
)

// sticky keeps clients at their server by a cookie. Its value names the server by a code
// of the pool's and the server's name that only the key's owners can make, and says when
// it was given, signed: every node with the key reads it alike, and it tells nobody where
// the server is.
type sticky struct {
	cookie string
	ttl    time.Duration
	codes  map[[codeBytes]byte]*slot
	macs   sync.Pool // of *signer
	after  []byte    // what follows the value in Set-Cookie
	pool   string
}

const (
	codeBytes = 8
	timeBytes = 4
	signBytes = 16
	rawBytes  = codeBytes + timeBytes + signBytes
)

// A signer is an HMAC with room for what it signs and its sum.
type signer struct {
	hash.Hash
	said [codeBytes + timeBytes]byte
	sum  [sha256.Size]byte
}

var coding = base64.RawURLEncoding.Strict()

func newSticky(p *Pool, key []byte) *sticky {
	conf := p.Config.Sticky
	if conf == nil {
		return nil
	}
	y := &sticky{cookie: conf.Cookie, ttl: conf.TTL, codes: make(map[[codeBytes]byte]*slot, len(p.slots)), pool: p.Name}
	y.macs.New = func() any { return &signer{Hash: hmac.New(sha256.New, key)} }
	for i := range p.slots {
		s := &p.slots[i]
		s.code = y.code(s.Name)
		y.codes[s.code] = s
	}
	after := "; Path=/; HttpOnly; SameSite=Lax"
	if y.ttl > 0 {
		after += "; Max-Age=" + strconv.FormatInt(int64(y.ttl/time.Second), 10)
	}
	y.after = []byte(after)
	return y
}

// code is the name of a server in cookies.
func (y *sticky) code(server string) (code [codeBytes]byte) {
	m := y.macs.Get().(*signer)
	defer y.macs.Put(m)
	m.Reset()
	m.Write([]byte("server\x00" + y.pool + "\x00" + server))
	copy(code[:], m.Sum(m.sum[:0]))
	return code
}

// sign writes the signature of raw's code and time behind them.
func (y *sticky) sign(raw *[rawBytes]byte) {
	m := y.macs.Get().(*signer)
	defer y.macs.Put(m)
	m.Reset()
	m.said = [codeBytes + timeBytes]byte(raw[:])
	m.Write(m.said[:])
	copy(raw[codeBytes+timeBytes:], m.Sum(m.sum[:0]))
}

// read returns the server that a cookie's value names, and when the cookie was given. A
// value that is forged, too old, or names no server of the pool is none.
func (y *sticky) read(value []byte, now time.Time) (s *slot, given time.Time) {
	var raw, want [rawBytes]byte
	if len(value) != coding.EncodedLen(rawBytes) {
		return nil, time.Time{}
	}
	if n, err := coding.Decode(raw[:], value); err != nil || n != rawBytes {
		return nil, time.Time{}
	}
	copy(want[:], raw[:codeBytes+timeBytes])
	y.sign(&want)
	if !hmac.Equal(raw[:], want[:]) {
		return nil, time.Time{}
	}
	given = time.Unix(int64(binary.BigEndian.Uint32(raw[codeBytes:])), 0)
	if y.ttl > 0 && now.Sub(given) >= y.ttl {
		return nil, time.Time{}
	}
	return y.codes[[codeBytes]byte(raw[:codeBytes])], given
}

// value appends the value of a cookie that names s, given now.
func (y *sticky) value(b []byte, s *slot, now time.Time) []byte {
	var raw [rawBytes]byte
	copy(raw[:], s.code[:])
	binary.BigEndian.PutUint32(raw[codeBytes:], uint32(now.Unix()))
	y.sign(&raw)
	return coding.AppendEncode(b, raw[:])
}

// Kept returns the server at which a cookie of the request keeps its client, if it may
// still be given this exchange: one that is drained keeps who it has. fresh says that the
// cookie need not be given again.
func (p *Pool) Kept(q *dataplane.Request, now time.Time) (s *Server, fresh bool) {
	y := p.sticky
	if y == nil {
		return nil, false
	}
	at, given := y.read(cookie(q.Header, y.cookie), now)
	if at == nil || !at.keeps(now) {
		return nil, false
	}
	return at.Server, y.ttl == 0 || now.Sub(given) < y.ttl/2
}

// Cookie appends the Set-Cookie field's value that keeps a client at s; of a pool that is
// not sticky nothing.
func (p *Pool) Cookie(b []byte, s *Server, now time.Time, secure bool) []byte {
	y, at := p.sticky, p.places[s]
	if y == nil || at == nil {
		return b
	}
	b = append(append(b, y.cookie...), '=')
	b = append(y.value(b, at, now), y.after...)
	if secure {
		b = append(b, "; Secure"...)
	}
	return b
}

// keeps reports whether the server may be given an exchange of a client that it has.
func (s *Server) keeps(now time.Time) bool {
	if !s.unfit.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Addr().IsValid() && s.mode != Disable && s.health.Fit(now)
}
