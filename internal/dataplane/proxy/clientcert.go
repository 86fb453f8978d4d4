package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"time"

	"proxyd/internal/cert"
	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A clientele is whose certificates the clients of one listener may show. It never changes.
type clientele struct {
	conf  *tls.Config
	roots *cert.Roots
	label string // of the keys of its tickets: a session is no proof to who believes others
}

// newClientele makes the clientele of a listener with client_ca, which otherwise is as base
// says.
func newClientele(base *tls.Config, l *config.Listener, roots *cert.Roots) *clientele {
	digest := roots.Digest()
	c := &clientele{conf: base.Clone(), roots: roots, label: l.Name + " " + hex.EncodeToString(digest[:])}
	c.conf.ClientCAs = roots.Pool
	c.conf.ClientAuth = tls.VerifyClientCertIfGiven
	if l.ClientCert == "require" {
		c.conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.conf.GetConfigForClient = nil // all of them are had aside
	// Of a session that is resumed too.
	c.conf.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) > 0 && roots.Revoked(s.VerifiedChains) != nil {
			return errRevoked
		}
		return nil
	}
	return c
}

var errRevoked = errors.New("the client's certificate is revoked")

// clientelesOf makes those of all listeners that have client_ca.
func clientelesOf(c *config.Config, base *tls.Config, trust *cert.Trust) map[string]*clientele {
	var all map[string]*clientele
	for name, l := range c.Listener {
		if roots := trust.Roots(l.ClientCA); roots != nil {
			if all == nil {
				all = map[string]*clientele{}
			}
			all[name] = newClientele(base, l, roots)
		}
	}
	return all
}

// good reports whether a certificate that was good in the handshake still is.
func (c *clientele) good(s *tls.ConnectionState, now time.Time) bool {
	return !now.After(s.PeerCertificates[0].NotAfter) && c.roots.Revoked(s.VerifiedChains) == nil
}

// vouch judges the certificate of x's client by what the route and the listener want.
// It returns the word for why the exchange must not go on, or "".
//
// A route that needs one is for connections that were made for its host alone: whoever
// came for another may have been asked for something else (B7).
func (p *Plane) vouch(x *dataplane.Exchange, r *compiledRoute, dry bool) string {
	var shown *x509.Certificate
	if x.TLS != nil && len(x.TLS.PeerCertificates) > 0 {
		shown = x.TLS.PeerCertificates[0]
		if c := p.tls.clientele(x.Listener.Name); c == nil || !c.good(x.TLS, p.headTime(x)) {
			return "client_cert"
		}
	}
	switch {
	case !r.vouched:
		return ""
	case x.TLS != nil && !cameFor(x.TLS.ServerName, x.Request.Host):
		return "misdirected"
	case shown == nil && (!dry || x.TLS == nil):
		return "client_cert"
	}
	return ""
}

// cameFor reports whether a client that asked for a name (SNI) asked for that host. For an
// address no name is asked.
func cameFor(name string, host []byte) bool {
	if name == "" {
		_, err := netip.ParseAddr(strings.Trim(string(host), "[]"))
		return err == nil
	}
	return strings.EqualFold(strings.TrimSuffix(name, "."), string(host))
}

var (
	nameClientCert      = []byte("Client-Cert")
	nameClientCertChain = []byte("Client-Cert-Chain")
)

// isClientCert reports whether a field tells of a client's certificate (RFC 9440).
func isClientCert(f *dataplane.Field) bool {
	switch {
	case f.ID != dataplane.Other:
		return false
	case len(f.Name) == len(nameClientCert):
		return bytes.EqualFold(f.Name, nameClientCert)
	case len(f.Name) == len(nameClientCertChain):
		return bytes.EqualFold(f.Name, nameClientCertChain)
	}
	return false
}

// addClientCert tells the server which certificate the client has shown, if any.
func addClientCert(x *dataplane.Exchange) {
	if x.TLS == nil || len(x.TLS.PeerCertificates) == 0 {
		return
	}
	from := len(x.Text)
	x.Text = append(x.Text, ':')
	x.Text = base64.StdEncoding.AppendEncode(x.Text, x.TLS.PeerCertificates[0].Raw)
	x.Text = append(x.Text, ':')
	x.Request.Header.Add(dataplane.Other, nameClientCert, x.Text[from:len(x.Text):len(x.Text)])
}
