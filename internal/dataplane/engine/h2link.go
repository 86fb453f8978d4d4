package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/http2"
)

// An h2link is a connection with a server that speaks HTTP/2: the exchanges of all clients share
// it. One goroutine reads; what the exchanges want to send is gathered, and one goroutine at a
// time writes it. Each exchange has an h2call on it.
type h2link struct {
	home *kept
	u    *serverConn // the socket

	mu      sync.Mutex // guards what follows
	state   *http2.Client
	writing bool
	lost    error     // why nothing can be written any more
	blocked []*h2call // that wait for what is to be sent to become less
	served  bool      // a stream was opened
	expires moment    // when it is too old to be used again; 0: there is a stream
	heard   moment    // when the server was last heard of
	asked   moment    // when a ping was sent that was not answered; 0: none
	shut    bool      // the socket is interrupted
	ended   *sync.Cond

	spare []byte // the writer's
}

const (
	linkStreams = 128       // at once on one connection
	linkWindow  = 256 << 10 // bytes of an answer that wait for its client
	linkUnsent  = 64 << 10  // bytes that wait for the server to take what was sent before

	// quietTime is for how long a server that owes answers may say nothing until it is asked
	// whether it lives. gRPC's servers hang up on who asks more often than every five minutes.
	quietTime = 5*time.Minute + 10*time.Second
	// pingTime is how long that may take.
	pingTime = 15 * time.Second
	// writeTime is how long a server may take nothing of what was gathered for all its streams.
	writeTime = time.Minute
)

// A linking is a connection in the making, for which others wait too.
type linking struct {
	done chan struct{}
	err  error // after done
}

// call returns a stream to the server: on a connection that there is, if it has room, else on a
// new one. The error is as of dial.
func (k *kept) call(ctx context.Context, timeout time.Duration, total moment) (*serverConn, error) {
	for {
		k.mu.Lock()
		for _, l := range k.links {
			if u := l.open(); u != nil {
				k.mu.Unlock()
				k.engine.counts.reuses.Add(1)
				return u, nil
			}
		}
		if making := k.making; making != nil {
			k.mu.Unlock()
			if err := making.wait(ctx, timeout, total); err != nil {
				return nil, err
			}
			continue
		}
		making := &linking{done: make(chan struct{})}
		k.making = making
		k.mu.Unlock()
		u, err := k.link(ctx, timeout, total)
		making.err = err
		k.mu.Lock()
		k.making = nil
		k.mu.Unlock()
		close(making.done)
		return u, err
	}
}

// wait waits until the connection is there.
func (m *linking) wait(ctx context.Context, timeout time.Duration, total moment) error {
	if total != 0 {
		if left := time.Duration(total - now()); timeout == 0 || left < timeout {
			timeout = left
		}
	}
	var late <-chan time.Time
	if timeout != 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
		return dataplane.ErrDrained
	case <-late:
		if total != 0 && now() >= total {
			return dataplane.ErrTotalTime
		}
		return dataplane.ErrConnectTime
	}
}

// link makes a connection and opens its first stream.
func (k *kept) link(ctx context.Context, timeout time.Duration, total moment) (*serverConn, error) {
	u, err := k.dial(ctx, timeout, total, nil)
	if err != nil {
		return nil, err
	}
	if u.tls != nil && u.tls.conn.ConnectionState().NegotiatedProtocol != "h2" {
		u.close()
		return nil, fmt.Errorf("%w: the server does not offer HTTP/2 (ALPN h2)", dataplane.ErrConnect)
	}
	u.tcp.SetKeepAlive(true)
	u.tcp.SetKeepAlivePeriod(pingTime)
	l := &h2link{home: k, u: u, heard: now()}
	l.ended = sync.NewCond(&l.mu)
	l.state = http2.NewClient(http2.ClientConfig{
		Streams: linkStreams, Window: linkWindow, Unsent: linkUnsent,
		Limits: http1.Limits{HeaderBytes: maxResponseHead, Fields: maxFieldsServer},
	}, func(s *http2.Call) { s.Owner.(*h2call).wake() }, time.Duration(now()))
	first := l.open()
	k.mu.Lock()
	k.links = append(k.links, l)
	k.mu.Unlock()
	k.list()
	go l.run() // ends with the connection
	return first, nil
}

// open returns a stream that nothing was sent on, or nil if there is no room for one.
func (l *h2link) open() *serverConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil || !l.state.Reserve() {
		return nil
	}
	c := &h2call{link: l, in: make(chan struct{}, 1), out: make(chan struct{}, 1)}
	c.flow.Owner = c
	u := &serverConn{home: l.home, how: l.u.how, call: c, reused: l.served}
	c.stop = &u.stop
	l.served, l.expires = true, 0
	return u
}

// run reads what the server sends until the connection is over.
func (l *h2link) run() {
	err := l.read()
	l.mu.Lock()
	l.state.End(l.why(err))
	l.lost = l.why(err)
	for l.writing {
		l.ended.Wait()
	}
	l.mu.Unlock()
	k := l.home
	k.mu.Lock()
	for i, other := range k.links {
		if other == l {
			k.links = append(k.links[:i:i], k.links[i+1:]...)
			break
		}
	}
	k.mu.Unlock()
	l.u.close()
}

// why returns what the end of the connection with err means for those who have a stream.
func (l *h2link) why(err error) error {
	switch {
	case l.lost != nil:
		return l.lost
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

func (l *h2link) read() error {
	buf := make([]byte, 2*bufferBytes)
	have := 0
	for {
		l.mu.Lock()
		for l.state.Unsent() > 2*linkUnsent && l.lost == nil { // a server that asks and takes nothing is not heard
			l.kick()
			l.ended.Wait()
		}
		l.kick()
		over := l.state.Over()
		l.mu.Unlock()
		if over {
			return errHalt
		}
		n, err := l.u.wire.read(buf[have:], &limit{})
		if err != nil {
			return err
		}
		have += n
		l.mu.Lock()
		l.heard = now()
		used, err := l.state.Feed(buf[:have], time.Duration(l.heard))
		if !l.state.Pinged() {
			l.asked = 0
		}
		l.kick()
		l.mu.Unlock()
		have = copy(buf, buf[used:have])
		if err != nil {
			return err
		}
	}
}

// kick has what is gathered written. mu is held.
func (l *h2link) kick() {
	if !l.writing && l.lost == nil && l.state.Unsent() > 0 {
		l.writing = true
		l.home.engine.workers.run((*h2linkWriter)(l))
	}
}

// An h2linkWriter is an h2link whose gathered bytes are written.
type h2linkWriter h2link

func (w *h2linkWriter) work() {
	l := (*h2link)(w)
	defer func() {
		l.mu.Lock()
		l.writing = false
		l.ended.Broadcast()
		l.kick()
		l.mu.Unlock()
	}()
	for {
		l.mu.Lock()
		out := l.state.Take(l.spare)
		for i, c := range l.blocked {
			signal(c.out)
			l.blocked[i] = nil
		}
		l.blocked = l.blocked[:0]
		l.ended.Broadcast()
		l.mu.Unlock()
		if l.spare = out; len(out) == 0 {
			return
		}
		if err := l.u.wire.write(out, &limit{each: writeTime, late: dataplane.ErrSendTime, since: now()}); err != nil {
			l.fail(err)
			return
		}
	}
}

// fail ends a connection that is of no use any more.
func (l *h2link) fail(err error) {
	l.mu.Lock()
	if l.lost == nil {
		l.lost = err
	}
	l.state.Take(nil)
	l.state.End(err)
	l.mu.Unlock()
	l.u.wire.interrupt(errHalt)
}

// halt has the reader see that the connection is over. mu is held.
func (l *h2link) halt() {
	if l.state.Over() && !l.shut {
		l.shut = true
		l.u.wire.interrupt(errHalt)
	}
}

var errNoPing = errors.New("the server did not answer a ping")

// sweep ends a connection that is too old at t, or of no use; all is that it is to end as soon as
// its streams have.
func (l *h2link) sweep(t moment, all bool) {
	l.mu.Lock()
	idle := l.state.Open() == 0
	if all || idle && l.expires != 0 && t >= l.expires {
		l.state.Retire()
		l.halt()
	}
	if !idle && l.asked == 0 && t >= l.heard+moment(quietTime) {
		l.ping(t)
	}
	dead := l.asked != 0 && t >= l.asked+moment(pingTime)
	l.mu.Unlock()
	if dead {
		l.fail(errNoPing)
	}
}

// ping asks whether the server lives. mu is held.
func (l *h2link) ping(t moment) {
	if l.asked == 0 {
		l.asked = t
		l.state.Ping()
		l.kick()
	}
}
