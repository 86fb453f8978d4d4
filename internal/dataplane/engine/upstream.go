package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
)

// A serverConn is a connection to a server. One exchange at a time has it.
type serverConn struct {
	wire
	home    *kept
	how     *dataplane.ServerTLS // by which it was made; nil: in clear
	expires moment               // when it is too old to be used again
	reused  bool                 // this exchange is not its first
	proxied int                  // the version of the PROXY header that it began with; 0: none
}

// close closes the connection and counts it no more; a second call does nothing.
func (u *serverConn) close() {
	u.wire.close()
	if u.home != nil {
		u.home.server.Conns.Add(-1)
		u.home = nil
	}
}

// kept are the idle connections of one server, for all cores. The youngest is used
// first, so that those which are not needed grow old.
type kept struct {
	engine *Goroutine
	server *dataplane.Server

	mu   sync.Mutex // guards what follows
	idle []*serverConn

	listed atomic.Bool // in the engine's servers; changed under its mutex
}

// keptOf returns the idle connections of a server.
func (g *Goroutine) keptOf(s *dataplane.Server) *kept {
	return s.Kept(func() any { return &kept{engine: g, server: s} }).(*kept)
}

// take returns the youngest idle connection, or nil. Those that were made by another
// configuration of TLS are closed.
func (k *kept) take() *serverConn {
	how := k.server.TLS()
	for {
		k.mu.Lock()
		n := len(k.idle)
		if n == 0 {
			k.mu.Unlock()
			return nil
		}
		u := k.idle[n-1]
		k.idle[n-1] = nil
		k.idle = k.idle[:n-1]
		k.mu.Unlock()
		if u.how == how {
			u.reused = true
			return u
		}
		u.close()
	}
}

// keep takes back a connection on which all is said, to be used again within life.
func (k *kept) keep(u *serverConn, life time.Duration) {
	if life <= 0 || u.how != k.server.TLS() || k.server.Gone() || k.engine.draining.Load() {
		u.close()
		return
	}
	u.expires = now() + moment(life)
	k.mu.Lock()
	full := len(k.idle) >= k.engine.conf.Kept
	if !full {
		k.idle = append(k.idle, u)
	}
	k.mu.Unlock()
	if full {
		u.close()
	}
	if !k.listed.Load() {
		k.engine.mu.Lock()
		k.engine.servers[k] = struct{}{}
		k.listed.Store(true)
		k.engine.mu.Unlock()
	}
}

// sweep closes the connections that are too old at t, or all.
func (k *kept) sweep(t moment, all bool) {
	all = all || k.server.Gone()
	how := k.server.TLS()
	k.mu.Lock()
	var old []*serverConn
	still := k.idle[:0]
	for _, u := range k.idle {
		if all || t >= u.expires || u.how != how {
			old = append(old, u)
		} else {
			still = append(still, u)
		}
	}
	clear(k.idle[len(still):])
	k.idle = still
	k.mu.Unlock()
	for _, u := range old {
		u.close()
	}
}

// over reports whether k has no connection and will hardly have one.
func (k *kept) over() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.idle) == 0 && k.server.Gone()
}

var errNoAddress = errors.New("the server's name does not resolve")

// dial makes a new connection before total, when the exchange's time is up; 0 is never. It
// begins with hello. The error wraps ErrConnect, ErrConnectTime or ErrTotalTime.
func (k *kept) dial(ctx context.Context, timeout time.Duration, total moment, hello []byte) (*serverConn, error) {
	addr := k.server.Addr()
	if !addr.IsValid() {
		return nil, fmt.Errorf("%w: %w", dataplane.ErrConnect, errNoAddress)
	}
	d := net.Dialer{Timeout: timeout, KeepAlive: -1}
	if total != 0 {
		d.Deadline = total.time()
	}
	k.engine.counts.dials.Add(1)
	begun := now()
	tcp, err := d.DialTCP(ctx, "tcp", netip.AddrPort{}, addr)
	if err != nil {
		kind := dataplane.ErrConnect
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			kind = dataplane.ErrConnectTime
			if total != 0 && now() >= total {
				kind = dataplane.ErrTotalTime
			}
		}
		return nil, fmt.Errorf("%w: %w", kind, err)
	}
	u := &serverConn{home: k}
	if err := u.open(tcp); err != nil {
		tcp.Close()
		return nil, fmt.Errorf("%w: %w", dataplane.ErrConnect, err)
	}
	k.server.Conns.Add(1)
	if err := u.greet(hello); err != nil {
		u.close()
		return nil, err
	}
	if u.how = k.server.TLS(); u.how != nil {
		l := limit{over: dataplane.ErrConnectTime}
		if timeout > 0 {
			l.until = begun + moment(timeout)
		}
		if total != 0 {
			l.within(total, dataplane.ErrTotalTime)
		}
		if err := u.handshake(ctx, l); err != nil {
			u.close()
			return nil, err
		}
	}
	return u, nil
}

// handshake makes the connection one of TLS. The error is as of dial.
func (u *serverConn) handshake(ctx context.Context, l limit) error {
	stop := context.AfterFunc(ctx, func() { u.interrupt(dataplane.ErrDrained) })
	defer stop()
	s := &secure{wire: &u.wire, turns: u.home.engine.shakes}
	err := s.begin(l, func(under net.Conn) *tls.Conn { return tls.Client(under, u.how.Config) })
	if err != nil {
		if alert := s.take(); len(alert) > 0 {
			writeFD(u.fd, alert)
		}
		err = u.how.Met(nil, err)
		if errors.Is(err, dataplane.ErrConnectTime) || errors.Is(err, dataplane.ErrTotalTime) {
			return fmt.Errorf("%w: TLS handshake", err)
		}
		return fmt.Errorf("%w: TLS: %w", dataplane.ErrConnect, err)
	}
	state := s.conn.ConnectionState()
	s.judge = func(err error) error {
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "remote error" {
			return err
		}
		return u.how.Met(nil, err)
	}
	u.tls = s
	return u.how.Met(&state, nil)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
