package proxy

import (
	"bytes"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/files"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/upstream"
)

var (
	nameHost       = []byte("Host")
	nameConnection = []byte("Connection")
	valueUpgrade   = []byte("upgrade")
	nameVia        = []byte("Via")
	via11          = []byte("1.1 proxyd")
	via10          = []byte("1.0 proxyd")
	via20          = []byte("2.0 proxyd")
	via30          = []byte("3.0 proxyd")
	asterisk       = []byte("*")
	encodedSlash   = []byte("%2F") // as the normal form has it
	colon          = []byte(":")
)

// Begin strips what is of this hop or pretended, answers what is answered here, and
// otherwise adds what a server is told about the client and finds one. The order is
// fixed: strip, decide, add, choose. A call after the first, since the choice of a server
// had to wait, goes on there.
func (p *Plane) Begin(x *dataplane.Exchange) dataplane.Verdict {
	s, r := of(x)
	var v dataplane.Verdict
	if x.Mark.Begun {
		v = p.pick(x, r)
	} else {
		v = p.begin(x, s, r)
	}
	if v == dataplane.Answer {
		p.finish(x, s, r)
	}
	return v
}

func (p *Plane) begin(x *dataplane.Exchange, s *snapshot, r *compiledRoute) dataplane.Verdict {
	if x.Mark.Shed { // and has waited
		return p.refuse(x, "shed")
	}
	if v := p.prepare(x, s, r, false); v != dataplane.Next {
		return v
	}
	x.Mark.Begun = true
	x.Mark.Copied = r.mirror != nil && r.mirror.takes(x, r)
	return p.pick(x, r)
}

// prepare does all but the choice of a server. With dry it takes no place and counts
// nothing.
func (p *Plane) prepare(x *dataplane.Exchange, s *snapshot, r *compiledRoute, dry bool) dataplane.Verdict {
	q := &x.Request
	seen := s.origin(x)
	upgrade := r.WebSocket && q.WebSocket // S11: nothing else is upgraded to
	http1.StripHop(&q.Header, q.Nominated, upgrade)
	if q.Underscore {
		s.dropAliases(&q.Header, r)
	}
	s.identify(x, seen.trusted)

	if r.silent {
		x.Response.Status, x.Mark.Local, x.Mark.Reason = statusNoAnswer, true, unknownHost
		return dataplane.Close
	}
	if word := p.vouch(x, r, dry); word != "" {
		v := p.refuse(x, word)
		// Another connection may have a better certificate, or be for another name.
		x.Response.Close = true
		return v
	}
	if c := r.closed.Load(); c != nil && !c.lets(x.Mark.ClientIP) {
		return c.give(x)
	}
	switch {
	case q.Method == dataplane.CONNECT || q.Method == dataplane.TRACE: // S12, S13
		return p.refuse(x, "method")
	case bytes.Equal(q.Path, asterisk): // S15: the parser lets only OPTIONS have it
		return p.refuse(x, "options")
	case r.pool != nil && !spendForward(x):
		return p.refuse(x, "options")
	case r.slashes && bytes.Contains(q.Path, encodedSlash): // S8, C2
		return p.refuse(x, "encoded_slash")
	case x.Early && !replayable(x): // D8
		return p.refuse(x, "early")
	case q.Length > r.BodyBytes:
		return p.refuse(x, "too_large")
	}
	if r.pool != nil && !dry {
		if v := p.enter(x); v != dataplane.Next {
			return v
		}
	}
	for _, f := range r.filters.Request {
		if v := f.Request(x); v != dataplane.Next {
			if v == dataplane.Answer {
				p.filtered(x)
			}
			return v
		}
	}
	if r.rewrite != nil && x.Mark.Path == nil && !r.rewrite.apply(x) {
		return p.refuse(x, "rewrite")
	}
	switch {
	case r == s.challenge:
		return p.answerChallenge(x)
	case r.answer != nil:
		return r.answer.give(x)
	case r.redirect != nil:
		if word := r.redirect.give(x); word != "" {
			return p.refuse(x, word)
		}
		return dataplane.Answer
	case r.files != nil:
		x.Mark.Local = true
		if r.rewrite.leavesNothing(x) { // the root itself, named without its slash
			x.Mark.Reason = files.ToSlash(x)
		} else {
			x.Mark.Reason = r.files.Answer(x, p.opt.Now())
		}
		return dataplane.Answer
	}

	s.addForwarded(x, seen)
	r.addPrefix(x, seen)
	addClientCert(x)
	via := via11
	switch {
	case q.Version == 2:
		via = via20
	case q.Version == 3:
		via = via30
	case q.Minor == 0:
		via = via10
	}
	q.Header.Add(dataplane.Via, nameVia, via)
	if x.Early {
		q.Header.Add(dataplane.Other, nameEarlyData, valueOne)
	}
	if upgrade {
		q.Header.Add(dataplane.Connection, nameConnection, valueUpgrade)
	}
	return dataplane.Next
}

// send makes server the one that x goes to, and sets the Host that it is told.
func (r *compiledRoute) send(x *dataplane.Exchange, server *upstream.Server) {
	x.Server, x.Mark.Pick, x.Mark.Answered = &server.Server, server, false
	x.Text = r.host.tell(x.Text, &x.Request, server.Name)
}

// headTime is when the request's head was complete, as read by the engine: good enough
// for health and budgets, and it saves a look at the clock.
func (p *Plane) headTime(x *dataplane.Exchange) time.Time {
	if x.Times.Head.IsZero() {
		return p.opt.Now()
	}
	return x.Times.Head
}
