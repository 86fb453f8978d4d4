package proxy

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
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
	{"options", 200, false},
	{noRoute, 404, false},
	{"method", 405, false},
	{"host", 400, false},
	{"template", 500, false},
	{"too_large", 413, false},
	{"client_body", 400, false},
	{"client_slow", 408, false},
	{"drain", 503, false},
	{"no_server", 503, true},
	{"connect", 502, true},
	{"broken", 502, true},
	{"bad_response", 502, true},
	{"timeout", 504, true},
}

const noRoute = "no_route"

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
		x.Response.Header.Add(dataplane.Other, nameAllow, allowed)
	}
	if word == "options" {
		x.Response.Header.Add(dataplane.Other, nameAllow, allowed)
	}
	return dataplane.Answer
}

// A template is the target of a redirect, cut at its {words}.
type template struct {
	answer
	parts []part
}

// A part is fixed text or a value of the request.
type part struct {
	text []byte
	word string // uri, host, path, query; "" for text
}

// newTemplate compiles a redirect. C7 of the threat list: the target is absolute, so
// that no path of a client can make it another site's.
func newTemplate(c *config.Redirect) (*template, error) {
	to, status := c.To, c.Status
	if to == "https" {
		to = "https://{host}{uri}"
	}
	if status == 0 {
		status = 308
	}
	t := &template{answer: *newAnswer(status, "redirect")}
	scheme, rest, ok := strings.Cut(to, "://")
	if !ok || scheme != "http" && scheme != "https" || rest == "" || rest[0] == '/' {
		return nil, fmt.Errorf("redirect %q: want \"https\" or an absolute URL", c.To)
	}
	if err := clean([]byte(to)); err != nil {
		return nil, fmt.Errorf("redirect %q: %w", c.To, err)
	}
	site, _, _ := strings.Cut(rest, "/")
	site, _, _ = strings.Cut(site, "{uri}")
	if strings.Contains(site, "{path}") || strings.Contains(site, "{query}") {
		return nil, fmt.Errorf("redirect %q: the host must not come from the path or query", c.To)
	}
	if _, err := url.Parse(strings.NewReplacer("{uri}", "/", "{host}", "h", "{path}", "/", "{query}", "q").Replace(to)); err != nil {
		return nil, fmt.Errorf("redirect %q: no URL", c.To)
	}
	for to != "" {
		open := strings.IndexByte(to, '{')
		if open < 0 {
			open = len(to)
		}
		if open > 0 {
			t.parts = append(t.parts, part{text: []byte(to[:open])})
			to = to[open:]
			continue
		}
		word, after, ok := strings.Cut(to[1:], "}")
		switch word {
		case "uri", "host", "path", "query":
		default:
			ok = false
		}
		if !ok {
			return nil, fmt.Errorf("redirect %q: want {uri}, {host}, {path} or {query}", c.To)
		}
		t.parts, to = append(t.parts, part{word: word}), after
	}
	return t, nil
}

// give fills x.Response with the redirect for x.Request.
func (t *template) give(x *dataplane.Exchange) (word string) {
	r := &x.Request
	from := len(x.Text)
	for _, p := range t.parts {
		switch p.word {
		case "":
			x.Text = append(x.Text, p.text...)
		case "host":
			if len(r.Host) == 0 {
				return "host"
			}
			x.Text = append(x.Text, r.Host...)
		case "path":
			x.Text = append(x.Text, r.Path...)
		case "query":
			x.Text = append(x.Text, r.Query...)
		case "uri":
			x.Text = append(x.Text, r.Path...)
			if r.Query != nil {
				x.Text = append(append(x.Text, '?'), r.Query...)
			}
		}
	}
	target := x.Text[from:len(x.Text):len(x.Text)]
	if clean(target) != nil {
		return "template"
	}
	t.answer.give(x)
	x.Response.Header.Add(dataplane.Location, nameLocation, target)
	return ""
}

// clean refuses what has no place in a field value that holds a URL: B1 of the threat
// list, whatever a parser before us let through.
func clean(value []byte) error {
	for _, c := range value {
		if c <= ' ' || c == 0x7f || c == '\\' {
			return errNotClean
		}
	}
	return nil
}

var errNotClean = errors.New("a control character, space or backslash in a URL")
