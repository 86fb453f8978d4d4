// Package acme gets certificates of a CA by ACME (RFC 8555) for a cluster: one node at a time
// orders, all answer the CA and serve. What an order has come to is kept where every node has
// it before the CA is told of it, so that whoever orders next goes on with the same order.
package acme

import (
	"context"
	"crypto/x509"
	"time"
)

// Settings are what is wanted. They are the same on every node.
type Settings struct {
	Names     []string // each has a certificate of its own
	Email     string
	Directory string         // https URL
	Roots     *x509.CertPool // by which the CA itself is trusted; nil: those of the host
	EABID     string         // account at the CA; "" is none
	EABKey    string         // base64url
	Challenge string         // auto, http-01, tls-alpn-01 or dns-01
	Clear     bool           // port 80 is open here, so that http-01 may do
	DNS       DNS            // nil: no dns-01
}

// The types of challenges (RFC 8555, 8.3 and 8.4; RFC 8737).
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
	DNS01     = "dns-01"
)

// DNS makes TXT records, and takes them back.
type DNS interface {
	// Present returns when every server of the zone that can be asked has the record.
	Present(ctx context.Context, name, value string) error
	// Remove takes it back; that it is not there is no error.
	Remove(ctx context.Context, name, value string) error
}

// An Event is what came of an order, told by the node that had it.
type Event struct {
	Name      string
	Issued    bool // else it failed
	Renewal   bool // there was a certificate before
	Challenge string
	Failures  int    // in a row, with this one
	Issuer    string // host name of the directory
	Text      string
}

// A View is a certificate by ACME as an operator sees it.
type View struct {
	Name      string
	NotAfter  time.Time // zero: there is none yet
	Renew     time.Time // when it is renewed; zero: there is none yet
	Ordering  bool      // an order is on its way
	Failures  int       // in a row
	Error     string    // of the latest
	Next      time.Time // when it is tried again after a failure
	Directory string
}

// Issuer is what the CA goes by in metrics: the host of its directory.
func Issuer(directory string) string { return hostOf(directory) }
