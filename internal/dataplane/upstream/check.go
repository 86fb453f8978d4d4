package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/proxyheader"
)

const (
	maxAnswer  = 64 << 10 // of an answer's body, or of a TCP answer, is looked at
	maxInterim = 8        // interim responses that an answer may have before it
)

// answerLimits bound what a check reads of an answer's head.
var answerLimits = http1.Limits{HeaderBytes: 32 << 10, Fields: 100}

// A question is what the servers of a pool are asked, and which answer is good. It is
// immutable.
type question struct {
	*config.Check
	start  string // of an HTTP request, up to the value of Host
	end    string // what follows that value
	wanted statusSet
	want   pattern
	clear  bool   // without TLS, whatever the pool has
	sealed bool   // with TLS
	http2  bool   // the pool's servers speak it
	hello  []byte // before all else: that the connection is our own
}

// newQuestion makes the question of a pool's check, or nil if there is none.
func newQuestion(pool *config.Pool) (*question, error) {
	c := pool.Check
	if c == nil {
		return nil, nil
	}
	q := &question{Check: c, wanted: parseStatusSet(c.Status), clear: c.TLS != nil && !*c.TLS, http2: byHTTP2(pool)}
	q.sealed = pool.TLS != nil && !pool.TLS.Off && !q.clear
	text := c.Match
	switch c.Type {
	case "tcp":
		text = c.Expect
	case "grpc":
	default:
		q.compose()
	}
	var err error
	if c.Port == 0 { // another port is another service, of which nobody has said that it wants one
		if q.hello, err = introduction(pool.Proxied); err != nil {
			return nil, err
		}
	}
	if q.want, err = newPattern(text); err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	return q, nil
}

// compose writes the request but for the value of Host.
func (q *question) compose() {
	method := q.Method
	if method == "" {
		method = "GET"
	}
	q.start = method + " " + q.Path + " HTTP/1.1\r\nHost: "
	fields := map[string]string{"User-Agent": "proxyd-check", "Accept": "*/*"}
	for name, value := range q.Header {
		fields[textproto.CanonicalMIMEHeaderKey(name)] = value
	}
	if q.Body != "" {
		fields["Content-Length"] = strconv.Itoa(len(q.Body))
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		b.WriteString("\r\n" + name + ": " + fields[name])
	}
	q.end = b.String() + "\r\nConnection: close\r\n\r\n" + q.Body
}

// appendRequest appends what a server of that name is sent.
func (q *question) appendRequest(b []byte, server string) []byte {
	if q.Type == "tcp" {
		return append(b, q.Send...)
	}
	if q.Host != "" {
		server = q.Host
	}
	return append(append(append(b, q.start...), server...), q.end...)
}

// introduction is what a connection of our own to a server begins with, by the pool's
// proxy_protocol: a check is nobody else's.
func introduction(version int) ([]byte, error) {
	if version == 0 {
		return nil, nil
	}
	return proxyheader.Append(nil, version, netip.AddrPort{}, netip.AddrPort{})
}

// Introduction is what a connection for a request of our own begins with.
func (p *Pool) Introduction() ([]byte, error) { return introduction(p.Config.Proxied) }

// ask puts the question to a server and returns what is wrong, or "". It waits no
// longer than the check's time-out, or until ctx ends.
func (q *question) ask(ctx context.Context, e Env, s *Server) string {
	addr := s.Addr()
	if !addr.IsValid() {
		return "its name does not resolve"
	}
	if q.Port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), uint16(q.Port))
	}
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	conn, err := e.Dial(ctx, addr)
	if err != nil {
		s.rotate()
		return wording("connect", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if len(q.hello) > 0 {
		if _, err := conn.Write(q.hello); err != nil {
			return wording("send", err)
		}
	}
	if how := s.TLS(); how != nil && !q.clear {
		if conn, err = Seal(ctx, conn, how); err != nil {
			return wording("TLS", err)
		}
		defer conn.Close() // with a word of farewell
	}
	if q.speaksHTTP2(conn) {
		return q.judgeHTTP2(ctx, conn, s.Name)
	}
	if q.Type == "grpc" {
		return "TLS: the server does not agree to HTTP/2"
	}
	buf := askBuffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= 8<<10 {
			askBuffers.Put(buf)
		}
	}()
	*buf = q.appendRequest((*buf)[:0], s.Name)
	if len(*buf) > 0 {
		if _, err := conn.Write(*buf); err != nil {
			return wording("send", err)
		}
	}
	if q.Type == "tcp" {
		return q.judgeTCP(conn, buf)
	}
	return q.judgeHTTP(conn, buf)
}

// judgeTCP reads until the answer holds what is wanted.
func (q *question) judgeTCP(conn net.Conn, buf *[]byte) string {
	if q.want.empty() {
		if c, ok := conn.(interface{ SetLinger(int) error }); ok && q.Send == "" {
			c.SetLinger(0) // nothing was said: leave no trace of the connection on either side
		}
		return ""
	}
	got := (*buf)[:0]
	for !q.want.in(got) {
		if len(got) >= maxAnswer {
			return "the answer lacks what is expected"
		}
		got = slices.Grow(got, min(1024, maxAnswer-len(got)))
		n, err := conn.Read(got[len(got):min(cap(got), maxAnswer)])
		got = got[:len(got)+n]
		*buf = got
		switch {
		case n > 0:
		case err == io.EOF:
			return "the answer lacks what is expected"
		case err != nil:
			return wording("read", err)
		}
	}
	return ""
}

// judgeHTTP reads an answer's head, past interim ones, and its body as far as that is
// looked at.
func (q *question) judgeHTTP(conn net.Conn, buf *[]byte) string {
	var r dataplane.Response
	got, n, err := q.readHead(conn, *buf, &r)
	*buf = got
	if err != nil {
		return wording("read", err)
	}
	if !q.wanted.has(r.Status) {
		return "status " + strconv.Itoa(r.Status)
	}
	if q.want.empty() {
		return ""
	}
	found, err := q.search(conn, &r, got[n:])
	switch {
	case err != nil:
		return wording("read", err)
	case !found:
		return "the body lacks what must match"
	}
	return ""
}

// readHead reads up to the end of the final answer's head. It returns what was read
// and how much of it is that head.
func (q *question) readHead(conn io.Reader, buf []byte, r *dataplane.Response) (got []byte, n int, err error) {
	buf = buf[:0]
	for interim := 0; ; {
		r.Reset()
		n, err = http1.ParseResponse(buf, r, q.Method == "HEAD", answerLimits)
		switch {
		case err != nil:
			return buf, 0, err
		case n > 0 && r.Status >= 200:
			return buf, n, nil
		case n > 0:
			if interim++; interim > maxInterim {
				return buf, 0, &dataplane.Malformed{Status: 502, Reason: "interim_flood"}
			}
			buf = buf[:copy(buf, buf[n:])]
			continue
		}
		buf = slices.Grow(buf, 1024)
		n, err = conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return buf, 0, err
		}
	}
}

// search reads the body of r, of which have is there, and reports whether it holds what
// is wanted. A body that is framed wrongly or breaks off before that is known is an
// error.
func (q *question) search(conn io.Reader, r *dataplane.Response, have []byte) (bool, error) {
	var body []byte
	var chunks http1.ChunkReader
	rest := r.Length // of a counted body; -1: not counted
	if r.NoBody {
		rest = 0
	}
	in := make([]byte, 4<<10)
	for over := false; ; {
		for !over && (len(have) > 0 || rest == 0) {
			data, used := have, len(have)
			switch {
			case r.Chunked:
				var err error
				if data, used, over, err = chunks.Next(have); err != nil {
					return false, err
				}
			case rest >= 0:
				used = int(min(int64(used), rest))
				data = have[:used]
				rest -= int64(used)
				over = rest == 0
			}
			have = have[used:]
			body = append(body, data...)
			over = over || len(body) >= maxAnswer
		}
		body = body[:min(len(body), maxAnswer)]
		switch {
		case over:
			return q.want.in(body), nil
		case q.want.expr == nil && q.want.in(body):
			return true, nil
		}
		n, err := conn.Read(in)
		have = in[:n]
		switch {
		case n > 0 || err == nil:
		case err == io.EOF && !r.Chunked && rest < 0: // until the server closes
			return q.want.in(body), nil
		case err == io.EOF:
			return false, io.ErrUnexpectedEOF
		default:
			return false, err
		}
	}
}

// A pattern is what an answer must hold: a text, or "~" and a regular expression.
type pattern struct {
	text []byte
	expr *regexp.Regexp
}

func newPattern(s string) (p pattern, err error) {
	if expr, regex := strings.CutPrefix(s, "~"); regex {
		p.expr, err = regexp.Compile(expr)
		return p, err
	}
	p.text = []byte(s)
	return p, nil
}

// empty reports that nothing is wanted.
func (p pattern) empty() bool { return p.expr == nil && len(p.text) == 0 }

func (p pattern) in(b []byte) bool {
	if p.expr != nil {
		return p.expr.Match(b)
	}
	return bytes.Contains(b, p.text)
}

// wording is a short text for the operator.
func wording(doing string, err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return doing + ": timed out"
	}
	if bad := (*dataplane.Malformed)(nil); errors.As(err, &bad) {
		return "no acceptable HTTP: " + bad.Reason
	}
	if said := (*TLSFault)(nil); errors.As(err, &said) {
		return doing + ": " + said.Text
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return fmt.Sprintf("%s: %s", doing, text)
}

// askBuffers is a cache without a meaning of its own.
var askBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}
