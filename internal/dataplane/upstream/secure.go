package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"proxyd/internal/cert"
	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A Secure is how the servers of a pool are spoken to by TLS. It never changes; a reload
// that changes nothing about it goes on with the same one.
type Secure struct {
	conf  config.PoolTLS
	roots *cert.Roots       // nil: those that this system trusts
	shown *cert.Certificate // nil: none
	http2 bool              // is what they must speak
}

// NewSecure returns what c says, with what its files hold: roots is nil where c names none,
// and so is shown. It is before where nothing has changed since then, so that connections
// and sessions go on.
func NewSecure(c *config.PoolTLS, roots *cert.Roots, shown *cert.Certificate, http2 bool, before *Secure) *Secure {
	if before != nil && before.http2 == http2 && before.conf == *c && before.roots.Same(roots) && before.shown.Same(shown) {
		return before
	}
	return &Secure{conf: *c, roots: roots, shown: shown, http2: http2}
}

// Secure returns how the pool's servers are spoken to; nil is in clear.
func (p *Pool) Secure() *Secure { return p.secure.Load() }

// Roots returns the authorities that are believed; nil are those of this system.
func (s *Secure) Roots() *cert.Roots { return s.roots }

// Shown returns the certificate that is shown to servers that ask; nil is none.
func (s *Secure) Shown() *cert.Certificate { return s.shown }

// Name returns the name that the certificate of a server at host must be for.
func (s *Secure) Name(host string) string {
	if s.conf.Name != "" {
		return s.conf.Name
	}
	return host
}

// sessionsKept is for how many sessions with one server there is room. There is one name,
// and so one session.
const sessionsKept = 1

// config is how the server of that name is shaken hands with.
func (s *Secure) config(name string) *tls.Config {
	c := &tls.Config{
		ServerName: name,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		// A session skips the judgement of certificates, so that it lives as long as what they
		// were judged by.
		ClientSessionCache:          tls.NewLRUClientSessionCache(sessionsKept),
		InsecureSkipVerify:          s.conf.Insecure,
		DynamicRecordSizingDisabled: true,
	}
	if s.http2 {
		c.NextProtos = []string{"h2"}
	}
	c.VerifyConnection = s.verify
	if s.conf.Min == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	if s.roots != nil {
		c.RootCAs = s.roots.Pool
	}
	if s.shown != nil {
		shown := s.shown.TLS()
		// Not Certificates, of which one is shown only to who names its issuer.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
	}
	return c
}

// verify judges what crypto/tls does not; of a session that is resumed too.
func (s *Secure) verify(state tls.ConnectionState) error {
	if s.roots != nil && !s.conf.Insecure && s.roots.Revoked(state.VerifiedChains) != nil {
		return fmt.Errorf("its certificate (%s) is revoked by a list in %s", describe(state.PeerCertificates[0]), s.roots.File)
	}
	// One that knows nothing of ALPN lets the handshake pass.
	if s.http2 && state.NegotiatedProtocol != "h2" {
		return errNoHTTP2
	}
	return nil
}

var errNoHTTP2 = errors.New("it does not offer HTTP/2 (ALPN h2)")

// Results of a TLS handshake, the index of Server.Shakes.
const (
	ShakeFull = iota
	ShakeResumed
	ShakeFailed
)

// secure has the server spoken to in that way from now on; nil is in clear.
func (s *Server) secure(how *Secure, log *slog.Logger) {
	if how == s.sealed {
		return
	}
	s.sealed = how
	s.fault.Store(nil)
	if how == nil {
		s.SetTLS(nil)
		return
	}
	host, _, _ := net.SplitHostPort(s.Name) // newServer has seen to that
	name := how.Name(host)
	authorities := ""
	if how.roots != nil {
		authorities = how.roots.File
	}
	s.SetTLS(&dataplane.ServerTLS{Config: how.config(name), Met: func(state *tls.ConnectionState, err error) error {
		if err == nil {
			s.shaken(state, log)
			return nil
		}
		if isAny(err, dataplane.ErrConnectTime, dataplane.ErrTotalTime, dataplane.ErrDrained, context.Canceled, context.DeadlineExceeded) {
			s.Shakes[ShakeFailed].Add(1)
			return err
		}
		f := blameTLS(err, name, authorities)
		if how.http2 && strings.HasSuffix(f.Text, "no application protocol") { // as others say it
			f.Text = errNoHTTP2.Error()
		}
		s.unshaken(f, log)
		return f
	}})
}

// shaken notes a good handshake.
func (s *Server) shaken(state *tls.ConnectionState, log *slog.Logger) {
	result := ShakeFull
	if state.DidResume {
		result = ShakeResumed
	}
	s.Shakes[result].Add(1)
	if s.fault.Load() != nil && s.fault.Swap(nil) != nil {
		log.Info("TLS handshakes with server go well again", "pool", s.Pool, "server", s.Name)
	}
}

// unshaken notes a handshake that failed, and tells of each cause once.
func (s *Server) unshaken(f *TLSFault, log *slog.Logger) {
	s.Shakes[ShakeFailed].Add(1)
	if was := s.fault.Swap(&f.Text); was == nil || *was != f.Text {
		log.Warn("TLS handshake with server failed", "pool", s.Pool, "server", s.Name, "reason", f.Text)
	}
}

// Fault returns why the last TLS handshake with the server failed; "" if it went well.
func (s *Server) Fault() string {
	if f := s.fault.Load(); f != nil {
		return *f
	}
	return ""
}

// Seal has a handshake on conn, and returns what is then spoken on. On error conn is for
// the caller to close.
func Seal(ctx context.Context, conn net.Conn, how *dataplane.ServerTLS) (net.Conn, error) {
	sealed := tls.Client(conn, how.Config)
	err := sealed.HandshakeContext(ctx)
	if late := ctx.Err(); err != nil && late != nil {
		err = errors.Join(late, err)
	}
	if err != nil {
		return conn, how.Met(nil, err)
	}
	state := sealed.ConnectionState()
	return sealed, how.Met(&state, nil)
}
