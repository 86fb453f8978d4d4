package proxy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"proxyd/internal/cert"
	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

// handshakes is the TLS of all listeners: how it is had, with which certificates, and how
// many may be under way (E7). It outlives reloads, and implements dataplane.TLS.
type handshakes struct {
	plane *Plane
	certs *cert.Store
	conf  atomic.Pointer[tls.Config]            // of listeners that speak HTTP/2, too
	one   atomic.Pointer[tls.Config]            // of those that do not
	own   atomic.Pointer[map[string]*clientele] // by listener, of those with client_ca

	under atomic.Int64 // handshakes under way
	whose *conns       // likewise, by address

	tickets tickets
	watched sync.Once
	end     context.CancelFunc // of the look after the files; nil before the first
}

// use puts the certificates of set in force, and what c says of TLS; trust is what it says of
// the certificates of clients.
func (h *handshakes) use(c *config.Config, set *cert.Set, trust *cert.Trust) {
	h.certs.Use(set)
	h.tickets.use(c)
	conf := tlsConfig(c.TLS)
	conf.GetCertificate = h.certs.Get
	conf.GetConfigForClient = h.yield
	conf.SetSessionTicketKeys(h.tickets.at(h.plane.opt.Now()))
	one := conf.Clone()
	conf.NextProtos = append([]string{"h2"}, one.NextProtos...)
	h.conf.Store(conf)
	h.one.Store(one)
	h.admit(c, trust)
	if len(set.All()) > 0 {
		h.watched.Do(func() {
			var life context.Context
			life, h.end = context.WithCancel(context.Background())
			go h.certs.Watch(life) // ends with close
		})
	}
}

// admit puts in force by whom the certificates of clients are to be signed. Sessions of
// clients that others vouched for are not resumed.
func (h *handshakes) admit(c *config.Config, trust *cert.Trust) {
	all := clientelesOf(c, h.conf.Load(), trust)
	for name, own := range all {
		own.conf.SetSessionTicketKeys(h.tickets.of(own.label))
		if l := c.Listener[name]; l != nil && !l.HTTP2 {
			own.conf.NextProtos = h.one.Load().NextProtos
		}
	}
	h.own.Store(&all)
}

// clientele returns whose certificates the clients of a listener may show; nil is nobody's.
func (h *handshakes) clientele(listener string) *clientele {
	if all := h.own.Load(); all != nil {
		return (*all)[listener]
	}
	return nil
}

// close ends the look after the files. Plane.mu is held.
func (h *handshakes) close() {
	if h.end != nil {
		h.end()
	}
}

// keyExchanges are those that are had with clients. What a client offers first does not count;
// the first here is safe from who keeps what he records until he has a quantum computer.
var keyExchanges = [...]tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384}

// tlsConfig is how clients are spoken to. There is no renegotiation on this side of
// crypto/tls, no compression, and of TLS 1.2 only what has forward secrecy and
// authenticated encryption (G5). A client that asks for protocols of which we speak none
// is refused (G6).
func tlsConfig(c config.TLS) *tls.Config {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1", "http/1.0"}, // the last is all that curl --http1.0 offers
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		// Nothing is missed by who cannot have what is slow here: secp521r1, and ML-KEM-1024.
		CurvePreferences: keyExchanges[:],
		// A record for each write: a head and a short body are one already.
		DynamicRecordSizingDisabled: true,
	}
	if c.Min == "1.3" || c.Profile == "modern" {
		conf.MinVersion = tls.VersionTLS13
	}
	return conf
}

// quick reports whether to sign with a key takes some 30 us, not hundreds and more.
func quick(key crypto.PrivateKey) bool {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return key.Curve == elliptic.P256()
	case ed25519.PrivateKey:
		return true
	}
	return false
}

// quickExchange reports whether a client has one of the quick ways to exchange keys.
func quickExchange(hello *tls.ClientHelloInfo) bool {
	return slices.ContainsFunc(hello.SupportedCurves, func(c tls.CurveID) bool {
		return c != tls.CurveP384 && slices.Contains(keyExchanges[:], c)
	})
}

// yield is GetConfigForClient of all listeners. It changes nothing, but takes a handshake that
// will compute for long out of the way of others.
func (h *handshakes) yield(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	a, ok := hello.Conn.(dataplane.Aside)
	if !ok {
		return nil, nil
	}
	c, err := h.certs.Get(hello)
	if err == nil && quick(c.PrivateKey) && quickExchange(hello) {
		return nil, nil
	}
	return nil, a.Aside()
}

// Greet implements dataplane.TLS. It holds limits.handshakes and limits.handshakes_per_ip,
// of which the second is not for trusted proxies.
func (h *handshakes) Greet(l *dataplane.Listener, client netip.AddrPort) *tls.Config {
	p := h.plane
	s := p.current.Load()
	limits, addr := &s.conf.Limits, client.Addr().Unmap()
	ours := p.mayBeProbe(l, addr)
	if n := h.under.Add(1); limits.Handshakes > 0 && n > int64(limits.Handshakes) && !ours {
		h.under.Add(-1)
		p.listeners.at(l.Index).shaken.refused[shakeLimit].Add(1)
		return nil
	}
	most := limits.HandshakesPerIP
	if most > 0 && (ours || s.trusts(addr)) {
		most = 0
	}
	if !h.whose.enter(addr, most) {
		h.under.Add(-1)
		p.listeners.at(l.Index).shaken.refused[shakeLimit].Add(1)
		return nil
	}
	conf, one := h.conf.Load(), h.one.Load()
	if keys, fresh := h.tickets.turn(p.opt.Now()); fresh {
		conf.SetSessionTicketKeys(keys)
		one.SetSessionTicketKeys(keys)
		for _, own := range *h.own.Load() {
			own.conf.SetSessionTicketKeys(h.tickets.of(own.label))
		}
	}
	if !l.HTTP2 {
		conf = one
	}
	if own := h.clientele(l.Name); own != nil {
		conf = own.conf
	}
	return p.challengeable(conf) // a CA shows no certificate (RFC 8737)
}

// Met implements dataplane.TLS.
func (h *handshakes) Met(l *dataplane.Listener, client netip.AddrPort, state *tls.ConnectionState, took time.Duration, err error) {
	h.under.Add(-1)
	h.whose.leave(client.Addr())
	if _, ours := h.plane.probes.Load(unmapped(client)); ours {
		return
	}
	c := &h.plane.listeners.at(l.Index).shaken
	if err != nil {
		c.refused[shakeResult(err)].Add(1)
		h.plane.opt.Logger.Debug("TLS handshake failed", "listener", l.Name, "client", client.Addr().Unmap(), "error", err)
		return
	}
	c.took.Observe(took)
	c.good[placeOf(state.Version)][map[bool]int{true: 1}[state.DidResume]].Add(1)
}

// shakeCounters are of the handshakes of one listener.
type shakeCounters struct {
	good    [len(tlsVersions)][2]atomic.Uint64 // by version, and whether a session was resumed
	refused [len(shakeResults)]atomic.Uint64
	took    upstream.Histogram // of those that are good
}

var tlsVersions = [...]string{"1.2", "1.3"}

func placeOf(version uint16) int {
	if version == tls.VersionTLS13 {
		return 1
	}
	return 0
}

// shakeResults are why handshakes fail: limit, too many were under way; timeout; client, it
// went away, or would not have our certificate; client_cert, it showed none, or one that is not
// good; drain; cleartext, it was HTTP without TLS; error, the two sides have nothing in common or what came was no TLS.
var shakeResults = [...]string{"limit", "timeout", "client", "client_cert", "drain", "cleartext", "error"}

const (
	shakeLimit = iota
	shakeTimeout
	shakeClient
	shakeClientCert
	shakeDrain
	shakeCleartext
	shakeError
)

func shakeResult(err error) int {
	var op *net.OpError // which is how crypto/tls tells of the other side's alerts
	var bad *tls.CertificateVerificationError
	var m *dataplane.Malformed
	switch {
	case errors.Is(err, dataplane.ErrHandshakeTime):
		return shakeTimeout
	case errors.Is(err, dataplane.ErrDrained):
		return shakeDrain
	case errors.As(err, &m):
		return shakeCleartext
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.As(err, &op) && op.Op == "remote error":
		return shakeClient
	case errors.As(err, &bad), errors.Is(err, errRevoked), strings.Contains(err.Error(), "client didn't provide a certificate"):
		return shakeClientCert
	}
	return shakeError
}
