package accesslog

import (
	"crypto/tls"
	"net/netip"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A style is how lines are written: log.access without the output.
type style struct {
	node     string
	combined bool
	json     bool // else, and if not combined, name=value
	query    bool // the query is shown
	censor   censor
	noAgent  bool // User-Agent is not to be seen
	noFrom   bool // Referer is not to be seen
	sample   config.Share
	slow     time.Duration
}

func newStyle(c config.Access, node string) *style {
	s := &style{
		node:     node,
		combined: c.Format == "combined",
		json:     c.Format == "json" || c.Format == "",
		query:    c.Query,
		censor:   newCensor(c.Redact),
		sample:   c.Sample,
		slow:     c.Slow,
	}
	s.noAgent, s.noFrom = s.censor["user-agent"], s.censor["referer"]
	return s
}

// exchange appends the line of x.
func (s *style) exchange(dst []byte, x *dataplane.Exchange, e *Entry) []byte {
	if s.combined {
		return s.combinedExchange(dst, x, e)
	}
	l := line{b: dst, json: s.json}
	s.begin(&l, e.Now, x.Listener.Name, x.Mark.ClientIP)
	q, t := &x.Request, &x.Times
	l.text("proto", q.Proto())
	if x.TLS != nil {
		l.text("tls", versionOf(x.TLS))
		if x.TLS.ServerName != "" {
			l.text("sni", x.TLS.ServerName)
		}
	}
	l.bytes("method", q.MethodText)
	l.bytes("host", q.Host)
	path, query := x.Asked()
	l.bytes("path", path)
	if s.query && query != nil {
		l.open("query")
		s.censor.query(query, l.piece)
		l.shut()
	}
	l.number("status", int64(e.Status))
	if x.Mark.Reason != "" {
		l.text("reason", x.Mark.Reason)
	}
	l.text("route", x.Route.Name)
	l.list("policies", e.Policies)
	if x.Route.Pool != "" {
		l.text("pool", x.Route.Pool)
	}
	if x.Server != nil {
		l.text("server", x.Server.Name)
	}
	l.number("tries", int64(x.Attempt))
	l.number("bytes_in", x.Bytes.In)
	l.number("bytes_out", x.Bytes.Out)
	l.seconds("t_total", e.Now.Sub(t.Start))
	if !t.Sent.IsZero() {
		l.seconds("t_wait", t.Sent.Sub(t.Head)-t.Dial)
		l.seconds("t_connect", t.Dial)
		if !t.FirstByte.IsZero() {
			l.seconds("t_ttfb", t.FirstByte.Sub(t.Sent))
		}
	}
	if len(x.Mark.RequestID) > 0 {
		l.bytes("request_id", x.Mark.RequestID)
	}
	if x.Mark.Trace.On {
		l.hex("trace_id", x.Mark.Trace.ID[:])
	}
	if v := q.Header.Get(dataplane.UserAgent); v != nil {
		l.bytes("ua", visible(v, s.noAgent))
	}
	if v := q.Header.Get(dataplane.Referer); v != nil {
		l.open("referer")
		s.censor.target(visible(v, s.noFrom), s.query, l.piece)
		l.shut()
	}
	l.number("conn_id", int64(x.ConnID))
	l.number("config", int64(x.Config))
	return l.end()
}

// refused appends the line of bytes that never became a request.
func (s *style) refused(dst []byte, d *dataplane.Listener, client netip.AddrPort, m *dataplane.Malformed, now time.Time) []byte {
	if s.combined {
		return s.combinedRefused(dst, client, m, now)
	}
	l := line{b: dst, json: s.json}
	s.begin(&l, now, d.Name, client.Addr().Unmap())
	l.number("status", int64(m.Status))
	l.text("reason", m.Reason)
	if m.Detail != "" {
		l.text("detail", m.Detail)
	}
	return l.end()
}

// begin writes what every line begins with.
func (s *style) begin(l *line, now time.Time, listener string, client netip.Addr) {
	l.start(now)
	l.text("node", s.node)
	l.text("listener", listener)
	l.open("client")
	if client.IsValid() {
		l.b = client.WithZone("").AppendTo(l.b)
	}
	l.shut()
}

// visible returns v, or what stands for it if it is not to be seen.
func visible(v []byte, hidden bool) []byte {
	if hidden {
		return redactedBytes
	}
	return v
}

// versionOf is the version of TLS as the configuration writes it.
func versionOf(t *tls.ConnectionState) string {
	if t.Version == tls.VersionTLS13 {
		return "1.3"
	}
	return "1.2"
}
