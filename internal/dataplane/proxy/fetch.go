package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/upstream"
)

// fetchLimits bound the head of an answer, interim ones before it included by number.
var fetchLimits = http1.Limits{HeaderBytes: 64 << 10, Fields: 256}

const fetchInterims = 16

var valueClose = []byte("close")

// A fetcher asks servers of a snapshot's pools. It chooses them as exchanges do, so that
// health, max_conns and balance count what it does. Each request has a connection of its
// own.
type fetcher struct {
	pools map[string]*upstream.Pool
	env   upstream.Env
	now   func() time.Time
}

var _ dataplane.Fetcher = (*fetcher)(nil)

func (p *Plane) fetcher(s *snapshot) *fetcher {
	return &fetcher{pools: s.pools, env: p.opt.Upstream.Filled(), now: p.opt.Now}
}

// Fetch implements dataplane.Fetcher. It changes q: Host, and Connection.
func (f *fetcher) Fetch(ctx context.Context, name string, q *dataplane.Request, body []byte, client netip.Addr) (*dataplane.Response, error) {
	pool := f.pools[name]
	if pool == nil {
		return nil, fmt.Errorf("pool %q: %w", name, upstream.ErrNone)
	}
	server, err := pool.Pick(upstream.Ask{Now: f.now(), Hash: pool.Hash(q, client)})
	if err != nil {
		return nil, err
	}
	a := &fetched{ctx: ctx, fetcher: f, pool: pool, server: server}
	newHostRule(pool.Config).tell(nil, q, server.Name)
	q.Header.Add(dataplane.Connection, nameConnection, valueClose)
	r, err := a.ask(append(http1.AppendRequest(nil, q), body...), q.Method == dataplane.HEAD)
	if err != nil {
		pool.Failed(server, f.now(), err, a.conn != nil, f.env.Log)
		a.leave()
		return nil, err
	}
	if r.NoBody || r.Length == 0 {
		a.leave()
	} else {
		r.Read = a
	}
	return r, nil
}

// A fetched answer reads its body from a connection of its own.
type fetched struct {
	*fetcher
	ctx    context.Context
	pool   *upstream.Pool
	server *upstream.Server
	conn   net.Conn // nil: there is none yet
	stop   func() bool
	left   bool

	have   []byte // read and not taken apart yet
	in     [4 << 10]byte
	chunks *http1.ChunkReader // nil: no chunks
	rest   int64              // of a body with a length; -1: until the server closes
	err    error              // what Read says from now on
}

// ask sends the request and reads the head of the final answer.
func (a *fetched) ask(request []byte, head bool) (*dataplane.Response, error) {
	if err := a.dial(); err != nil {
		return nil, err
	}
	begun := a.now()
	a.conn.SetWriteDeadline(deadline(time.Now(), a.pool.Config.Timeout.Send))
	if _, err := a.conn.Write(request); err != nil {
		return nil, a.fault(err, dataplane.ErrSend, dataplane.ErrSendTime)
	}
	r := new(dataplane.Response)
	var got []byte
	for interims := 0; ; {
		r.Reset()
		n, err := http1.ParseResponse(got, r, head, fetchLimits)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %w", dataplane.ErrResponse, err)
		case n > 0 && r.Status == 101: // nobody asked for another protocol
			return nil, fmt.Errorf("%w: %w", dataplane.ErrResponse, &dataplane.Malformed{Status: 502, Reason: "upgrade"})
		case n > 0 && r.Status >= 200:
			now := a.now()
			a.pool.Answered(a.server, now, r.Status, now.Sub(begun), true, a.env.Log)
			a.body(r, got[n:])
			return r, nil
		case n > 0:
			if interims++; interims > fetchInterims {
				return nil, fmt.Errorf("%w: %w", dataplane.ErrResponse, &dataplane.Malformed{Status: 502, Reason: "interim_flood"})
			}
			got = got[:copy(got, got[n:])]
			continue
		}
		got = slices.Grow(got, 1<<10)
		n, err = a.read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// dial connects to the server. What is done with the connection ends with ctx.
func (a *fetched) dial() error {
	addr := a.server.Addr()
	if !addr.IsValid() {
		return fmt.Errorf("%w: its name does not resolve", dataplane.ErrConnect)
	}
	ctx := a.ctx
	if t := a.pool.Config.Timeout.Connect; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	begun := a.now()
	conn, err := a.env.Dial(ctx, addr)
	switch {
	case a.ctx.Err() == context.Canceled:
		if err == nil {
			conn.Close()
		}
		return a.ctx.Err()
	case err != nil && (ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)):
		return fmt.Errorf("%w: %w", dataplane.ErrConnectTime, err)
	case err != nil:
		return fmt.Errorf("%w: %w", dataplane.ErrConnect, err)
	}
	own, err := a.pool.Introduction()
	if err == nil && len(own) > 0 {
		_, err = conn.Write(own)
	}
	if err != nil {
		conn.Close()
		return fmt.Errorf("%w: PROXY header: %w", dataplane.ErrConnect, err)
	}
	if conn, err = a.seal(ctx, conn); err != nil {
		return err
	}
	a.server.Connect.Observe(a.now().Sub(begun))
	a.server.Conns.Add(1)
	a.conn, a.stop = conn, context.AfterFunc(a.ctx, func() { conn.Close() })
	return nil
}

// seal speaks TLS on conn if that is how the server is spoken to. On error conn is closed.
func (a *fetched) seal(ctx context.Context, conn net.Conn) (net.Conn, error) {
	how := a.server.TLS()
	if how == nil {
		return conn, nil
	}
	sealed, err := upstream.Seal(ctx, conn, how)
	if err == nil {
		return sealed, nil
	}
	conn.Close()
	switch {
	case a.ctx.Err() == context.Canceled:
		return nil, a.ctx.Err()
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: TLS: %w", dataplane.ErrConnectTime, err)
	}
	return nil, fmt.Errorf("%w: TLS: %w", dataplane.ErrConnect, err)
}

// body notes how what follows the head of r is framed.
func (a *fetched) body(r *dataplane.Response, have []byte) {
	a.have, a.rest = have, r.Length
	if r.Chunked {
		a.chunks = new(http1.ChunkReader)
	}
}

// Read reads from the answer's body, without its framing.
func (a *fetched) Read(p []byte) (int, error) {
	for a.err == nil && len(p) > 0 {
		if len(a.have) > 0 {
			if n := a.take(p); n > 0 {
				return n, nil
			}
			continue
		}
		n, err := a.read(a.in[:])
		a.have = a.in[:n]
		switch {
		case n > 0 || err == nil:
		case a.chunks == nil && a.rest < 0 && errors.Is(err, io.EOF):
			a.err = io.EOF
		default:
			a.breakOff(err)
		}
	}
	return 0, a.err
}

// take copies what is at hand of the body to p, and notes its end.
func (a *fetched) take(p []byte) int {
	from := a.have[:min(len(a.have), len(p))]
	if a.chunks != nil {
		data, n, done, err := a.chunks.Next(from)
		a.have = a.have[n:]
		switch {
		case err != nil:
			a.breakOff(fmt.Errorf("%w: %w", dataplane.ErrResponse, err))
		case done:
			a.err = io.EOF
		}
		return copy(p, data)
	}
	if a.rest >= 0 {
		from = from[:min(int64(len(from)), a.rest)]
		a.rest -= int64(len(from))
		if a.rest == 0 {
			a.err = io.EOF
		}
	}
	a.have = a.have[len(from):]
	return copy(p, from)
}

// breakOff ends the body before its time.
func (a *fetched) breakOff(err error) {
	a.err = err
	a.pool.Broke(a.server, a.now(), err, a.env.Log)
}

// read reads from the connection, waiting as long as the pool has it.
func (a *fetched) read(p []byte) (int, error) {
	a.conn.SetReadDeadline(deadline(time.Now(), a.pool.Config.Timeout.Read))
	n, err := a.conn.Read(p)
	if err != nil {
		err = a.fault(err, dataplane.ErrRead, dataplane.ErrReadTime)
	}
	return n, err
}

// fault says what a failure of the connection means: nothing about the server if ctx has
// ended it.
func (a *fetched) fault(err, broken, late error) error {
	switch why := a.ctx.Err(); {
	case why == context.DeadlineExceeded:
		return fmt.Errorf("%w: %w", dataplane.ErrTotalTime, err)
	case why != nil:
		return why
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", late, err)
	}
	return fmt.Errorf("%w: %w", broken, err)
}

// Close ends the exchange with the server.
func (a *fetched) Close() error {
	a.leave()
	return nil
}

// leave closes the connection and gives the server back, once.
func (a *fetched) leave() {
	if a.left {
		return
	}
	a.left = true
	if a.conn != nil {
		a.stop()
		a.conn.Close()
		a.server.Conns.Add(-1)
	}
	a.pool.Release(a.server)
}

// deadline is when something that began then is late; never without a limit.
func deadline(begun time.Time, limit time.Duration) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	return begun.Add(limit)
}
