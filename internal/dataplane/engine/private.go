package engine

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/proxyheader"
)

// A connection to a server that begins with a PROXY header is its client's for good: the
// server takes whatever comes on it for what that client says. So it stays with the
// client's connection, is used again for requests of that alone, and ends with it.

// mostPrivate is how many idle connections to servers are kept for one client.
const mostPrivate = 4

// private is what a client's connection has of the servers for itself. Exchanges that the
// connection carries at the same time share it.
type private struct {
	local func() netip.AddrPort // where the client connected to

	mu   sync.Mutex // guards what follows
	idle []*serverConn
	over bool // the client's connection has ended
}

// take returns an idle connection to k that began with a header of that version, or nil.
func (p *private) take(k *kept, version int) *serverConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.idle) - 1; i >= 0; i-- {
		u := p.idle[i]
		if u.home != k || u.proxied != version {
			continue
		}
		p.idle = append(p.idle[:i], p.idle[i+1:]...)
		if now() < u.expires && u.how == k.server.TLS() {
			u.reused = true
			return u
		}
		u.close()
	}
	return nil
}

// keep takes back a connection on which all is said, to be used again within life.
func (p *private) keep(u *serverConn, life time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if life <= 0 || p.over || u.home.server.Gone() || u.home.engine.draining.Load() {
		u.close()
		return
	}
	u.expires = now() + moment(life)
	if len(p.idle) == mostPrivate {
		p.idle[0].close()
		p.idle = append(p.idle[:0], p.idle[1:]...)
	}
	p.idle = append(p.idle, u)
}

func (p *private) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle) == 0
}

// close closes what there is. Nothing is kept from now on.
func (p *private) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.idle {
		u.close()
	}
	p.idle, p.over = nil, true
}

// takeKept returns an idle connection that the exchange may go on with, or nil.
func (e *exchange) takeKept(k *kept) *serverConn {
	if version := e.desk.x.Route.Proxied; version != 0 {
		return e.private.take(k, version)
	}
	return k.take()
}

// dial makes a new connection for the exchange.
func (e *exchange) dial(k *kept, total moment) (*serverConn, error) {
	x := &e.desk.x
	var hello []byte
	if version := x.Route.Proxied; version != 0 {
		var err error
		if hello, err = proxyheader.Append(nil, version, x.Client, e.private.local()); err != nil {
			return nil, fmt.Errorf("%w: %w", dataplane.ErrConnect, err)
		}
	}
	u, err := k.dial(e.engine.force, connectTime(&x.Route.Timeout), total, hello)
	if err == nil {
		u.proxied = x.Route.Proxied
	}
	return u, err
}

// keepServer takes back a connection to a server on which all is said.
func (e *exchange) keepServer(u *serverConn) {
	life := e.desk.x.Route.Timeout.Idle
	if u.proxied != 0 {
		e.private.keep(u, life)
		return
	}
	u.home.keep(u, life)
}

// greet sends what a new connection begins with: so little that it does not wait.
func (u *serverConn) greet(hello []byte) error {
	if len(hello) == 0 {
		return nil
	}
	n, e := writeFD(u.fd, hello)
	if n == len(hello) {
		return nil
	}
	return fmt.Errorf("%w: PROXY header: %w", dataplane.ErrConnect, os.NewSyscallError("write", e))
}

// to returns the address and port that the client connected to.
func (c *clientConn) to() netip.AddrPort {
	if c.named != nil {
		return *c.named
	}
	return localPortOf(int32(c.fd))
}
