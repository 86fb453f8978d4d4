package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
)

// A serverConn is a connection to a server, or a stream of one that speaks HTTP/2. One exchange
// at a time has it.
type serverConn struct {
	wire            // the connection; of a stream only what interrupts
	call    *h2call // nil: it is no stream
	home    *kept
	how     *dataplane.ServerTLS // by which it was made; nil: in clear
	expires moment               // when it is too old to be used again
	reused  bool                 // this exchange is not its first
	proxied int                  // the version of the PROXY header that it began with; 0: none
	life    time.Duration        // of a stream: how long its connection is kept without any
}

// interrupt makes every wait on u return err, as that of a wire.
func (u *serverConn) interrupt(err error) {
	if u.call == nil {
		u.wire.interrupt(err)
		return
	}
	u.set(err)
	u.call.wake()
}

// read waits until there is something of the answer and reads it. At the end it returns io.EOF.
func (u *serverConn) read(b []byte, l *limit) (int, error) {
	if u.call != nil {
		return u.call.read(b, l)
	}
	return u.wire.read(b, l)
}

// glance is read, but for its wait.
func (u *serverConn) glance(b []byte, l *limit) (int, error) {
	if u.call != nil {
		return u.call.glance(b)
	}
	return u.wire.glance(b, l)
}

// put writes a part of the request's body, framed as u wants it; last is that it is the end.
func (u *serverConn) put(b []byte, last bool, l *limit) error {
	if u.call != nil {
		return u.call.write(b, last, l)
	}
	return u.wire.write(b, l)
}

// close closes the connection and counts it no more; a second call does nothing.
func (u *serverConn) close() {
	if u.call != nil {
		if u.home != nil {
			u.call.close(u.life)
			u.home = nil
		}
		return
	}
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

	mu     sync.Mutex // guards what follows
	idle   []*serverConn
	links  []*h2link // those that speak HTTP/2
	making *linking  // one of them

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
	if u.call != nil {
		u.life = life
		u.close()
		return
	}
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
	k.list()
}

// list has the sweeper look after k.
func (k *kept) list() {
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
	links := slices.Clone(k.links)
	k.mu.Unlock()
	for _, u := range old {
		u.close()
	}
	for _, l := range links {
		l.sweep(t, all || l.u.how != how || !k.server.HTTP2())
	}
}

// over reports whether k has no connection and will hardly have one.
func (k *kept) over() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.idle)+len(k.links) == 0 && k.server.Gone()
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
	// Not DialTCP: it binds the socket first, so that a port serves one connection whoever it is
	// with, and is sought for long when most are taken.
	conn, err := d.DialContext(ctx, "tcp", addr.String())
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
	if err := u.open(conn.(*net.TCPConn)); err != nil {
		conn.Close()
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
