package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// A TLSFault is why a handshake with a server failed, in words for an operator.
type TLSFault struct {
	Text string
	Err  error // what crypto/tls said
}

func (f *TLSFault) Error() string { return f.Text }
func (f *TLSFault) Unwrap() error { return f.Err }

// blameTLS puts the error of a handshake that we began into words: which certificate of the
// other side it is, which name was wanted, and whose word was believed (authorities is a
// file, or "" for those that this system trusts).
func blameTLS(err error, name, authorities string) *TLSFault {
	return &TLSFault{Text: wordsOf(err, name, authorities), Err: err}
}

func wordsOf(err error, name, authorities string) string {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		shown := "its certificate"
		if len(verify.UnverifiedCertificates) > 0 {
			shown += " (" + describe(verify.UnverifiedCertificates[0]) + ")"
		}
		return shown + " " + unfit(verify.Err, name, authorities)
	}
	var header tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &header):
		return "it does not speak TLS"
	case errors.As(err, &op) && op.Op == "remote error":
		text := strings.TrimPrefix(op.Err.Error(), "tls: ")
		if strings.Contains(text, "certificate") && !strings.Contains(text, "unknown certificate authority") {
			return "it refuses us: " + text + " (does it want a client certificate? tls.cert)"
		}
		return "it refuses us: " + text
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "it closed the connection within the handshake"
	}
	return strings.TrimPrefix(err.Error(), "tls: ")
}

// unfit says why a certificate does not prove that its holder is the one of that name.
func unfit(err error, name, authorities string) string {
	whose := "no authority that this system trusts"
	if authorities != "" {
		whose = "no authority of " + authorities
	}
	var unknown x509.UnknownAuthorityError
	var other x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "is signed by " + whose
	case errors.As(err, &other):
		return "is not for the name " + name
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return fmt.Sprintf("has expired or is not valid yet (%s to %s)", invalid.Cert.NotBefore.UTC().Format("2006-01-02 15:04 MST"), invalid.Cert.NotAfter.UTC().Format("2006-01-02 15:04 MST"))
	}
	return "is refused: " + strings.TrimPrefix(err.Error(), "x509: ")
}

// describe names a certificate: what it is for, and who signed it.
func describe(c *x509.Certificate) string {
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{c.Subject.String()}
	}
	if len(names) > 4 {
		names = append(names[:4], fmt.Sprintf("%d more", len(names)-4))
	}
	by := c.Issuer.CommonName
	if by == "" {
		by = c.Issuer.String()
	}
	return fmt.Sprintf("for %s, by %q", strings.Join(names, ", "), by)
}
