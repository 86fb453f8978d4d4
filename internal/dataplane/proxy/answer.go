package proxy

import (
	"fmt"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/files"
	"proxyd/internal/dataplane/http1"
)

// A cause is why an answer was made here. Its word is the reason in the access log and
// in proxyd_http_local_responses_total.
type cause struct {
	word     string
	status   int  // that goes with it; 0 for those of the configuration
	alarming bool // counted from 0 on, so that an alert sees the first
}

// causes are all there are.
var causes = [...]cause{
	{"respond", 0, false},
	{"redirect", 0, false},
	{"maintenance", 0, false},
	{challengeReason, 200, false},
	{"options", 200, false},
	{noRoute, 404, false},
	{unknownHost, 421, false},
	{"rewrite", 400, false},
	{"encoded_slash", 400, false},
	{"method", 405, false},
	{"host", 400, false},
	{"client_cert", 403, false}, // the route needs one, or the client's is not good any more
	{"misdirected", 421, false}, // the route needs one, and the connection was made for another host
	{"template", 500, false},
	{"internal", 500, true},
	{"too_large", 413, false},
	{"client_body", 400, false},
	{"client_slow", 408, false},
	{"drain", 503, false},
	{"held_full", 503, false},
	{"shed", 503, true},
	{"early", 425, false},
	{files.Whole, 200, false},
	{files.Part, 206, false},
	{files.Slash, 301, false},
	{files.NotModified, 304, false},
	{files.Forbidden, 403, false},
	{files.NotFound, 404, false},
	{files.Method, 405, false},
	{files.Precondition, 412, false},
	{files.NoSuchRange, 416, false},
	{files.Failed, 500, true},
	{"no_server", 503, true},
	{"queue_full", 503, false}, // or no queue, and every server has max_conns
	{"queue_wait", 503, false},
	{"connect", 502, true},
	{"broken", 502, true},
	{"bad_response", 502, true},
	{"timeout", 504, true},
}

const noRoute, unknownHost, challengeReason = "no_route", "unknown_host", "acme_challenge"

// causeIndex returns the place of a word in causes, or -1.
func causeIndex(word string) int {
	for i := range causes {
		if causes[i].word == word {
			return i
		}
	}
	return -1
}

// An answer is a response made here, ready to be sent.
type answer struct {
	status int
	kind   []byte // Content-Type
	body   []byte
	reason string
}

var (
	nameContentType = []byte("Content-Type")
	nameLocation    = []byte("Location")
	nameAllow       = []byte("Allow")
	retryAfterShed  = []byte("1")
	plainText       = []byte("text/plain; charset=utf-8")
	allowed         = []byte("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")
)

// newAnswer makes a plain answer that says its status and nothing of our insides.
func newAnswer(status int, reason string) *answer {
	return &answer{status: status, kind: plainText, body: fmt.Appendf(nil, "%d %s\n", status, http1.Reason(status)), reason: reason}
}

// configured is the answer of a route with respond.
func configured(c *config.Respond) *answer {
	a := &answer{status: c.Status, body: []byte(c.Body), kind: []byte(c.Type), reason: "respond"}
	if a.status == 0 {
		a.status = 200
	}
	if len(a.kind) == 0 {
		a.kind = plainText
	}
	return a
}

// newAnswers makes the answer for each cause that has a status.
func newAnswers() map[string]*answer {
	all := make(map[string]*answer, len(causes))
	for _, c := range causes {
		if c.status != 0 {
			all[c.word] = newAnswer(c.status, c.word)
		}
	}
	all["options"].body = nil
	return all
}

// give fills x.Response with a.
func (a *answer) give(x *dataplane.Exchange) dataplane.Verdict {
	r := &x.Response
	r.Reset()
	r.Status, r.Minor, r.Body = a.status, 1, a.body
	r.Length = int64(len(a.body))
	r.NoBody = x.Request.Method == dataplane.HEAD || a.status == 204 || a.status == 304
	if len(a.body) > 0 {
		r.Header.Add(dataplane.Other, nameContentType, a.kind)
	}
	x.Mark.Local, x.Mark.Reason = true, a.reason
	return dataplane.Answer
}

// refuse answers with what goes with the word, which is one of causes.
func (p *Plane) refuse(x *dataplane.Exchange, word string) dataplane.Verdict {
	p.answers[word].give(x)
	switch x.Response.Status {
	case 400, 408, 413:
		// What is left of the request cannot be told from the next one, or is not wanted.
		x.Response.Close = true
	case 405:
		// A client that asked for a tunnel may send what belongs into it.
		x.Response.Close = x.Request.Method == dataplane.CONNECT
	}
	switch word {
	case "method", "options":
		x.Response.Header.Add(dataplane.Other, nameAllow, allowed)
	case "shed":
		x.Response.Header.Add(dataplane.Other, nameRetryAfter, retryAfterShed)
	}
	return dataplane.Answer
}

// finish makes an answer of ours whole: the route's page, what every answer has, and what
// the policies do with it.
func (p *Plane) finish(x *dataplane.Exchange, s *snapshot, r *compiledRoute) {
	r.pages.dress(x)
	s.trace.tell(x)
	s.pledge(x)
	offer(x)
	if v := p.filter(x, s, r); v != dataplane.Close {
		sayGRPC(x)
	}
	if l := x.Listener; l.ProxyStatus || l.ServerTiming {
		p.tell(x)
	}
}

// filter has the policies look at an answer. Where one leaves the answer to us, it is
// made; no policy sees that.
func (p *Plane) filter(x *dataplane.Exchange, s *snapshot, r *compiledRoute) dataplane.Verdict {
	for _, f := range r.filters.Response {
		v := f.Response(x)
		if v == dataplane.Next {
			continue
		}
		if v == dataplane.Answer {
			p.filtered(x)
			r.pages.dress(x)
			s.trace.tell(x)
			s.pledge(x)
		}
		return v
	}
	return dataplane.Next
}

// filtered makes the answer that a filter has left to us.
func (p *Plane) filtered(x *dataplane.Exchange) {
	if x.Response.Status == 0 {
		p.refuse(x, x.Mark.Reason)
	}
}
