package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"strings"

	"proxyd/internal/cert"
	"proxyd/internal/dataplane"
)

// Managed is what certificates that the cluster gets by itself take of the data plane.
type Managed struct {
	Certificates []*cert.Certificate         // served behind those of files
	Pending      map[string]bool             // names that have none yet: nobody is sent to https for them
	Tokens       map[string][]byte           // what a CA gets that asks by http (RFC 8555, 8.3), by token
	Handshakes   map[string]*tls.Certificate // or by a handshake (RFC 8737), by name
}

// Manage puts m in force. It must not be changed afterwards.
func (p *Plane) Manage(m Managed) {
	p.managed.Store(&m)
	p.tls.certs.Manage(m.Certificates)
}

var challengePath = []byte("/.well-known/acme-challenge/")

// token returns what a CA gets for x; nil if x does not ask for a challenge that is known
// here. What is not known goes its way: a server may get certificates by itself, too.
func (p *Plane) token(x *dataplane.Exchange) []byte {
	m := p.managed.Load()
	if m == nil || len(m.Tokens) == 0 {
		return nil
	}
	token, ok := bytes.CutPrefix(x.Request.Path, challengePath)
	if !ok {
		return nil
	}
	return m.Tokens[string(token)]
}

// challenged reports whether a CA asks for a challenge that is known here.
func (p *Plane) challenged(x *dataplane.Exchange) bool {
	return (x.Request.Method == dataplane.GET || x.Request.Method == dataplane.HEAD) && p.token(x) != nil
}

// answerChallenge answers a CA.
func (p *Plane) answerChallenge(x *dataplane.Exchange) dataplane.Verdict {
	value := p.token(x)
	if value == nil { // it was taken back a moment ago
		return p.refuse(x, noRoute)
	}
	p.answers[challengeReason].give(x)
	x.Response.Body, x.Response.Length = value, int64(len(value))
	return dataplane.Answer
}

// challengeProtocol is by what a CA says that it asks for a challenge (RFC 8737, 6.2).
const challengeProtocol = "acme-tls/1"

// challengeable is conf, and has a CA that asks for a challenge by a handshake get its answer
// while there is one. Who offers that protocol and no other is no client.
func (p *Plane) challengeable(conf *tls.Config) *tls.Config {
	m := p.managed.Load()
	if m == nil || len(m.Handshakes) == 0 {
		return conf
	}
	next := conf.Clone()
	next.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != challengeProtocol {
			if conf.GetConfigForClient != nil {
				return conf.GetConfigForClient(hello)
			}
			return conf, nil
		}
		answer := m.Handshakes[strings.ToLower(hello.ServerName)]
		if answer == nil {
			return nil, errNoChallenge
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{challengeProtocol}, Certificates: []tls.Certificate{*answer}}, nil
	}
	return next
}

var errNoChallenge = errors.New("a CA asks for a challenge that is not known here")

// uncertified reports whether x asks for a name whose certificate has not come yet.
func (p *Plane) uncertified(x *dataplane.Exchange) bool {
	m := p.managed.Load()
	return m != nil && len(m.Pending) > 0 && m.Pending[string(x.Request.Host)]
}
