package cert

import (
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// A Set is certificates among which clients are served by the name that they ask for. It
// never changes.
type Set struct {
	all    []*Certificate            // in the order given
	exact  map[string][]*Certificate // by name or address
	beyond map[string][]*Certificate // those for *.NAME, by NAME
	first  []*Certificate            // for who asks for none of the names: those like the first
}

// NewSet returns the set of certificates of which the first is the default.
func NewSet(all []*Certificate) *Set {
	s := &Set{all: all, exact: map[string][]*Certificate{}, beyond: map[string][]*Certificate{}}
	for _, c := range all {
		for _, name := range c.Names {
			if parent, ok := strings.CutPrefix(name, "*."); ok {
				s.beyond[parent] = append(s.beyond[parent], c)
			} else {
				s.exact[name] = append(s.exact[name], c)
			}
		}
	}
	for _, of := range []map[string][]*Certificate{s.exact, s.beyond} {
		for name := range of {
			preferred(of[name])
		}
	}
	if len(all) > 0 {
		// Its twin with another kind of key is as good.
		s.first = []*Certificate{all[0]}
		for _, c := range all[1:] {
			if slices.Equal(c.Names, all[0].Names) {
				s.first = append(s.first, c)
			}
		}
		preferred(s.first)
	}
	return s
}

// preferred sorts certificates for one name: elliptic curves cost us a tenth of RSA (E7),
// and clients that do not know them get the next.
func preferred(of []*Certificate) {
	slices.SortStableFunc(of, func(a, b *Certificate) int { return rank(a) - rank(b) })
}

func rank(c *Certificate) int {
	if _, ok := c.tls.Leaf.PublicKey.(*ecdsa.PublicKey); ok {
		return 0
	}
	return 1
}

// All returns the certificates in the order given.
func (s *Set) All() []*Certificate { return s.all }

// Find returns the certificates for a name, best first: those of just that name, else those
// of a wildcard in place of its first label, else the default.
func (s *Set) Find(name string) []*Certificate {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if found := s.exact[name]; len(found) > 0 {
		return found
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if found := s.beyond[parent]; len(found) > 0 {
			return found
		}
	}
	return s.first
}

var errNone = errors.New("there is no certificate")

// choose returns the certificate for a client. Who asks for no name gets that of the
// address that it came to, if there is one.
func (s *Set) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := hello.ServerName
	if name == "" && hello.Conn != nil {
		if at, err := netip.ParseAddrPort(hello.Conn.LocalAddr().String()); err == nil {
			name = at.Addr().Unmap().WithZone("").String()
		}
	}
	found := s.Find(name)
	if len(found) == 0 {
		return nil, errNone
	}
	if len(found) == 1 {
		return &found[0].tls, nil
	}
	// What the client can verify is asked, not whether the name is in it: who gets the default
	// asked for another.
	able := *hello
	able.ServerName = ""
	for _, c := range found {
		if able.SupportsCertificate(&c.tls) == nil {
			return &c.tls, nil
		}
	}
	return &found[0].tls, nil
}
