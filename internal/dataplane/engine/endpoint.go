package engine

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"proxyd/internal/dataplane"
)

// An Endpoint is an UDP socket at which clients speak HTTP/3. It stays when what is said of
// its listener changes: connections that stand do not notice, those to come have the new one.
type Endpoint struct {
	engine    *Goroutine
	socket    net.PacketConn
	transport *quic.Transport
	listener  *quic.EarlyListener
	ids       idMaker
	seat      atomic.Pointer[seat]
	life      context.Context // ends with Close
	end       context.CancelFunc
	opening   atomic.Int64 // handshakes under way

	mu    sync.Mutex // guards what follows
	conns map[*h3conn]struct{}
	shut  bool
	empty chan struct{} // closed when Close was called and there is no connection
	over  chan struct{} // closed when the socket is
}

// A seat is for whom an Endpoint's connections are.
type seat struct {
	listener *dataplane.Listener
	handler  dataplane.Handler
}

// EndpointKeys are what nodes of a cluster have in common, so that one can answer for another.
type EndpointKeys struct {
	Reset [32]byte // of the tokens by which a client learns that nobody knows its connection
	Token [32]byte // of those that show an address to be a client's own
	Mark  [6]byte  // of this node, with which its connection ids begin; see IDMark
}

const (
	// retryFrom is how many handshakes may be under way before a client must show that its
	// address is its own: with as many an attacker may be at work (D8).
	retryFrom = 32

	h3Streams    = 128       // at once, of a connection
	h3Uni        = 16        // likewise, that carry no request
	h3Window     = 256 << 10 // bytes of a request's body that wait for its server
	h3ConnWindow = 1 << 20   // likewise of all streams of a connection
	h3Silence    = 30 * time.Second
	h3Alive      = 10 * time.Second
)

// Endpoint begins to listen at socket, which is its from now on. The connections are l's,
// until Use says otherwise.
func (g *Goroutine) Endpoint(socket net.PacketConn, k EndpointKeys, l *dataplane.Listener, h dataplane.Handler) (*Endpoint, error) {
	e := &Endpoint{engine: g, socket: socket, conns: map[*h3conn]struct{}{}, empty: make(chan struct{}), over: make(chan struct{})}
	e.life, e.end = context.WithCancel(context.Background())
	e.seat.Store(&seat{l, h})
	e.ids.mark = k.Mark
	rand.Read(e.ids.tag[:]) // never fails
	e.transport = &quic.Transport{
		Conn:                  mayLose(socket),
		ConnectionIDGenerator: e.ids,
		StatelessResetKey:     (*quic.StatelessResetKey)(&k.Reset),
		TokenGeneratorKey:     (*quic.TokenGeneratorKey)(&k.Token),
		VerifySourceAddress:   e.doubts,
		ConnContext:           e.greet,
	}
	conf := &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           max(l.Limits.HandshakeTime/2, time.Second), // of which quic-go allows twice as much in all
		MaxIdleTimeout:                 h3Silence,
		KeepAlivePeriod:                h3Alive, // who asked for something slow is not to be lost; who asks for nothing is let go
		InitialStreamReceiveWindow:     h3Window,
		MaxStreamReceiveWindow:         h3Window,
		InitialConnectionReceiveWindow: h3ConnWindow,
		MaxConnectionReceiveWindow:     h3ConnWindow,
		MaxIncomingStreams:             h3Streams,
		MaxIncomingUniStreams:          h3Uni,
		RequireStreamCreditRelease:     true, // a stream counts as long as its exchange goes on (D1)
		Allow0RTT:                      true,
	}
	var err error
	e.listener, err = e.transport.ListenEarly(&tls.Config{NextProtos: []string{"h3"}, GetConfigForClient: greeted}, conf)
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("listen for HTTP/3: %w", err)
	}
	if !g.endpoints.add(e) {
		e.Close()
		return nil, net.ErrClosed
	}
	g.mu.Lock()
	g.swept.Do(func() { go g.sweep() }) // ends with g.force
	g.mu.Unlock()
	go e.accept() // ends with Close
	return e, nil
}

// Use makes the connections to come l's.
func (e *Endpoint) Use(l *dataplane.Listener, h dataplane.Handler) { e.seat.Store(&seat{l, h}) }

// Close takes no new connection. Those that there are have their exchanges and end; the
// socket is closed when the last has.
func (e *Endpoint) Close() {
	e.mu.Lock()
	was := e.shut
	e.shut = true
	none := len(e.conns) == 0
	e.mu.Unlock()
	if was {
		return
	}
	e.end()
	e.listener.Close()
	e.each(func(h *h3conn) { h.leave() })
	if none {
		close(e.empty)
	}
	go func() { // ends when the last connection has
		<-e.empty
		e.transport.Close()
		e.socket.Close()
		close(e.over)
		e.engine.endpoints.remove(e)
	}()
}

// Over is closed when the endpoint has no connection and no socket any more.
func (e *Endpoint) Over() <-chan struct{} { return e.over }

func (e *Endpoint) accept() {
	for {
		conn, err := e.listener.Accept(e.life)
		if err != nil {
			return
		}
		go e.welcome(conn) // ends with the connection
	}
}

// enter counts a connection, unless the endpoint is closed.
func (e *Endpoint) enter(h *h3conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.shut {
		e.conns[h] = struct{}{}
		e.engine.quic.Add(1)
	}
	return !e.shut
}

func (e *Endpoint) left(h *h3conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, h)
	e.engine.quic.Add(-1)
	if e.shut && len(e.conns) == 0 {
		close(e.empty)
	}
}

// each calls f for every connection. f may close it.
func (e *Endpoint) each(f func(*h3conn)) {
	e.mu.Lock()
	all := make([]*h3conn, 0, len(e.conns))
	for h := range e.conns {
		all = append(all, h)
	}
	e.mu.Unlock()
	for _, h := range all {
		f(h)
	}
}

// A greeting is a connection's handshake as the listener sees it.
type greeting struct {
	*seat
	client netip.AddrPort
	conf   *tls.Config
	began  moment
	once   sync.Once
	over   func()
}

type greetingKey struct{}

var errNoRoom = errors.New("no room for a handshake")

// doubts reports whether a client must show that its address is its own.
func (e *Endpoint) doubts(net.Addr) bool {
	if e.opening.Load() < retryFrom {
		return false
	}
	e.engine.counts.retries.Add(1)
	return true
}

// greet is asked about each connection before its handshake.
func (e *Endpoint) greet(ctx context.Context, who *quic.ClientInfo) (context.Context, error) {
	s := e.seat.Load()
	g := &greeting{seat: s, client: addrPortOf(who.RemoteAddr), began: now(), over: func() { e.opening.Add(-1) }}
	if g.conf = s.listener.TLS.Greet(s.listener, g.client); g.conf == nil {
		e.engine.counts.unmet.Add(1)
		return nil, errNoRoom
	}
	e.opening.Add(1)
	// A connection that ends has had its handshake, or never will.
	context.AfterFunc(ctx, func() { g.met(nil, context.Cause(ctx)) })
	return context.WithValue(ctx, greetingKey{}, g), nil
}

// met tells the listener, once, how the handshake went.
func (g *greeting) met(state *tls.ConnectionState, err error) {
	g.once.Do(func() {
		g.over()
		var idle *quic.HandshakeTimeoutError
		if errors.As(err, &idle) {
			err = fmt.Errorf("%w: %w", dataplane.ErrHandshakeTime, err)
		}
		g.listener.TLS.Met(g.listener, g.client, state, time.Duration(now()-g.began), err)
	})
}

// greeted returns the TLS of a connection that was greeted.
func greeted(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	g, ok := hello.Context().Value(greetingKey{}).(*greeting)
	if !ok {
		return nil, errors.New("a connection that nobody has greeted")
	}
	conf := g.conf.Clone()
	conf.NextProtos = []string{"h3"}
	return conf, nil
}

// addrPortOf returns an UDP address, IPv4 as such on a socket for both families.
func addrPortOf(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := u.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// endpoints are those of an engine that are not over.
type endpoints struct {
	mu   sync.Mutex // guards what follows
	all  map[*Endpoint]struct{}
	shut bool
	none chan struct{} // closed when the last is over; nil if nobody waits
}

func (s *endpoints) add(e *Endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*Endpoint]struct{}{}
	}
	s.all[e] = struct{}{}
	return !s.shut
}

func (s *endpoints) remove(e *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, e)
	if len(s.all) == 0 && s.none != nil {
		close(s.none)
		s.none = nil
	}
}

func (s *endpoints) list() []*Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Endpoint, 0, len(s.all))
	for e := range s.all {
		all = append(all, e)
	}
	return all
}

// each calls f for every connection of all endpoints.
func (s *endpoints) each(f func(*h3conn)) {
	for _, e := range s.list() {
		e.each(f)
	}
}

// drain closes all endpoints and returns when the last connection has ended, by force when
// ctx ends.
func (s *endpoints) drain(ctx context.Context) error {
	s.mu.Lock()
	s.shut = true
	if s.none == nil {
		s.none = make(chan struct{})
	}
	none := s.none
	if len(s.all) == 0 {
		close(none)
		s.none = nil
	}
	s.mu.Unlock()
	for _, e := range s.list() {
		e.Close()
	}
	select {
	case <-none:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-none:
		return nil
	default:
	}
	s.each(func(h *h3conn) { h.cut(dataplane.ErrDrained) })
	<-none
	return dataplane.ErrDrained
}

// Endpoint is that of the goroutine engine.
func (e *Loop) Endpoint(socket net.PacketConn, k EndpointKeys, l *dataplane.Listener, h dataplane.Handler) (*Endpoint, error) {
	return e.side.Endpoint(socket, k, l, h)
}
