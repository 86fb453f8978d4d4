package engine

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
)

// A client is the other side of an exchange towards which the answer goes, in the protocol
// that it speaks: a connection of HTTP/1.1 (clientConn), or one stream of a connection that
// carries many at a time. It knows how bytes get from and to the client, and nothing of
// handlers, servers, retries or filters: what an exchange is stands in exchange alone.
//
// One goroutine reads and one, the same or another, does the rest. interrupt and
// interrupted may be called by anyone.
type client interface {
	// read waits until there is something of the request's body and reads it into b, which
	// is not empty: as the client framed it, where exchange.framed is set, and without any
	// framing otherwise. Only then it returns io.EOF at the end of a good body. The error of
	// a body that is malformed wraps ErrClientBody.
	read(b []byte, l *limit) (int, error)
	// trailers returns field lines that followed the body after which read returned io.EOF.
	trailers() []byte
	// appendHead appends the head of r to out as it will be said. Whose heads are no part of
	// the bytes of an answer keeps r until then and appends nothing. upgrade is set for a
	// 101 that was asked for. It notes how long the head is in r.HeadBytes.
	appendHead(out []byte, r *dataplane.Response, upgrade bool) []byte
	// say sends a, then b, either of which may be empty, and the end of the answer if this
	// is the last of it. It waits no longer than a client may take. It counts what it has
	// sent in the exchange's Bytes.Out. The error is one of dataplane's.
	say(a, b []byte, last bool) error
	// interim sends an interim response, whose fields may be sent on.
	interim(r *dataplane.Response) error
	// trailed makes the trailers that allowed names be sent with the end of the answer.
	// Only those whose answers are not framed in chunks are told. raw is field lines.
	trailed(raw []byte, allowed [][]byte)
	// sayFile sends the head of r and the part of a file that is its body.
	sayFile(r *dataplane.Response, s *dataplane.FileSection) error
	// tunnel lets the client and u speak until both have ended or neither has said
	// anything for a while. The head of the 101 has been said.
	tunnel(u *serverConn, silence time.Duration) error
	// tear sees to it that the client cannot take an answer for whole, of which the end
	// was not said.
	tear()

	// interrupt makes every wait in read, say and tunnel return err, now and until it is
	// resumed. The first err stays, but errDrainNow and errHalt.
	interrupt(err error)
	// resume takes an interrupt with err back, and reports whether there was one.
	resume(err error) bool
	// interrupted returns what interrupt was told, or nil.
	interrupted() error
}

// An exchange is a dataplane.Exchange on its way: it has the handler decide, gets the request
// to a server and the answer to the client, whatever protocol the client speaks. The client
// and the exchange belong to one goroutine; desk is there while the exchange lasts.
type exchange struct {
	engine   *Goroutine
	handler  dataplane.Handler
	listener *dataplane.Listener
	client   client
	pipe     *wire // the client's own connection, if the kernel can move bodies by it
	private  *private
	framed   bool // bodies are framed as by HTTP/1.1: by a length, in chunks, by the end of the connection

	desk  *desk
	have  int                // bytes in desk.in
	head  int                // of them the request's head
	asked bool               // Match was called and End was not
	again bool               // the client's connection will be used for another request
	heavy bool               // the last exchange was on a Heavy route
	said  *dataplane.Verdict // what Begin has said already; nil: it is to be asked

	heard atomic.Int64 // the moment when the server was last heard of, for the sweeper

	// A request that can be sent again may be taken away from a server that is lost, as
	// long as nothing has come from it. Whoever makes waits false decides.
	movable bool
	waits   atomic.Bool // movable, and nothing has come

	mu     sync.Mutex  // guards what follows
	parked bool        // waiting for the handler
	server *serverConn // that the exchange is at
	source io.Closer   // that an answer made here is read from
}

// run has the handler decide about the request at hand, whose head is in the desk's x, does
// what it says, and tells it of the end. What of the body came with the head is in the
// desk's buffer behind it.
func (e *exchange) run() error {
	d := e.desk
	x := &d.x
	d.body.begin(d.in[e.head:e.have], &x.Request, e.framed)
	x.Bytes.In = int64(e.head)
	x.Resume = d.resume
	if !e.asked {
		e.asked = true
		e.handler.Match(x)
	}
	e.heavy = x.Route.Heavy

	verdict, err := e.begin()
	switch verdict {
	case dataplane.Answer:
		err = e.answer()
	case dataplane.Next:
		err = e.forward()
	default:
		e.again = false
	}
	x.Bytes.In += d.body.taken
	e.asked = false
	e.handler.End(x, err)
	return err
}

// panicked ends the exchange in which the handler panicked. What it left behind is not used
// again.
func (e *exchange) panicked(p any) {
	e.engine.conf.Panic(p)
	if u := e.detach(); u != nil {
		u.close()
	}
	d := e.desk
	e.desk = nil
	if d == nil {
		return
	}
	d.body.release()
	if !e.asked {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			e.engine.conf.Panic(p)
		}
	}()
	e.asked = false
	e.handler.End(&d.x, errPanic)
}

// attach makes u the server that the exchange is at, so that the sweeper and a forced
// end can interrupt it. The error says that there was a forced end already.
func (e *exchange) attach(u *serverConn) error {
	e.heard.Store(int64(now()))
	e.movable = e.desk.x.Request.Method.Idempotent() && e.desk.body.whole && e.desk.body.atHand
	e.waits.Store(e.movable)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.client.interrupted(); err != nil {
		return err
	}
	e.server = u
	return nil
}

// detach undoes attach and returns what was attached.
func (e *exchange) detach() *serverConn {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.server
	e.server = nil
	return u
}

// attachSource is attach for what the answer's body is read from.
func (e *exchange) attachSource(s io.Closer) error {
	e.heard.Store(int64(now()))
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.client.interrupted(); err != nil {
		return err
	}
	e.source = s
	return nil
}

func (e *exchange) detachSource() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.source = nil
}

// cut interrupts the exchange wherever it waits. e.mu is held.
func (e *exchange) cut(err error) {
	e.client.interrupt(err)
	if e.parked {
		e.desk.resume()
	}
	if e.server != nil {
		e.server.interrupt(err)
	}
	if e.source != nil {
		go e.source.Close() // it may wait for something; it ends with the close
		e.source = nil
	}
}

// sweep takes the exchange away from a server that is lost, so that it can go elsewhere.
// Otherwise it reports whether the exchange waits for others so long that its client may
// have gone meanwhile. e.mu is held.
func (e *exchange) sweep(t moment) (waits bool) {
	if t-moment(e.heard.Load()) < moment(e.engine.conf.Sweep) {
		return false
	}
	if e.server != nil && e.server.home.server.Lost() && e.waits.CompareAndSwap(true, false) {
		e.server.interrupt(dataplane.ErrServerDown)
		return false
	}
	return e.server != nil || e.source != nil || e.parked
}

// clientPace returns how fast the client must be to send or to accept bytes.
func (e *exchange) clientPace() pace {
	return pace{rate: e.listener.Limits.MinRate, window: e.listener.Limits.RateWindow}
}
