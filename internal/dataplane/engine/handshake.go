package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// handshake makes the connection one of TLS. It returns false when the connection is over.
// A client that takes too long is not waited for (E7 of the threat list).
func (c *clientConn) handshake() bool {
	c.mu.Lock()
	c.idle = false
	c.mu.Unlock()
	how := c.listener.TLS
	conf := c.greeted
	if c.greeted = nil; conf == nil {
		conf = how.Greet(c.listener, c.peer)
	}
	if conf == nil {
		c.why = dataplane.ClosedError
		return false
	}
	l := limit{over: dataplane.ErrHandshakeTime}
	if t := c.listener.Limits.HandshakeTime; t > 0 {
		l.until = c.began + moment(t)
	}
	c.tls = &secure{wire: &c.wire, turns: c.engine.shakes}
	c.tls.feed.rest, c.hello = c.hello, nil
	var err error
	defer func() {
		how.Met(c.listener, c.peer, c.state, time.Duration(now()-c.began), err)
		c.began = now() // of the time for a head
	}()
	err = plainly(c.tls.begin(l, func(under net.Conn) *tls.Conn { return tls.Server(under, conf) }))
	if err != nil {
		c.unshaken(err)
		return false
	}
	promptly(int32(c.fd))
	state := c.tls.conn.ConnectionState()
	c.state = &state
	if state.NegotiatedProtocol == challengeProtocol {
		c.why = dataplane.ClosedDone
		return false
	}
	return true
}

// challengeProtocol is spoken by a CA for the handshake alone (RFC 8737, 3): no data follows.
const challengeProtocol = "acme-tls/1"

// unshaken ends a connection whose handshake has failed.
func (c *clientConn) unshaken(err error) {
	alert := c.tls.take()
	c.tls = nil // nothing more is sealed
	var answer []byte
	if c.why, answer = c.engine.unshaken(c.listener, c.handler, c.peer, err, alert); len(answer) == 0 {
		return
	}
	if n, _ := writeFD(c.fd, answer); n == len(answer) {
		c.linger()
	}
}

// unshaken says what the end of a handshake by err means, and what is sent in answer. Who
// speaks HTTP in clear is told so in clear; anyone else gets the alert that crypto/tls has
// written.
func (g *Goroutine) unshaken(l *dataplane.Listener, h dataplane.Handler, client netip.AddrPort, err error, alert []byte) (why dataplane.Closing, answer []byte) {
	var m *dataplane.Malformed
	switch {
	case errors.Is(err, dataplane.ErrHandshakeTime):
		return dataplane.ClosedTime, alert
	case errors.Is(err, dataplane.ErrDrained):
		return dataplane.ClosedDrain, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return dataplane.ClosedClient, alert
	case errors.As(err, &m):
		h.Refused(l, client, m)
		r := dataplane.Response{Status: m.Status, Minor: 1, Body: []byte("400 Bad Request: this port speaks HTTPS\n")}
		r.Length = int64(len(r.Body))
		answer = http1.AppendResponse(nil, &r, http1.ResponseOptions{Minor: 1, Date: g.date.at(g.conf.Now())})
		return dataplane.ClosedError, append(answer, r.Body...)
	}
	return dataplane.ClosedError, alert
}

// promptly has the end of a handshake, to which nothing is answered, acknowledged at once. A
// client whose kernel holds small segments back (Nagle) sends no request before that. A
// failure costs those some time.
func promptly(fd int32) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
}

// plainly says of a handshake that failed since the client spoke HTTP without TLS just that.
func plainly(err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) && clearHTTP(header.RecordHeader) {
		return &dataplane.Malformed{Status: 400, Reason: "cleartext", Detail: "HTTP without TLS on a listener for TLS"}
	}
	return err
}

// clearHTTP reports whether what came in the place of a record's header begins a request.
func clearHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH", "CONNE", "TRACE", "PRI *":
		return true
	}
	return false
}
