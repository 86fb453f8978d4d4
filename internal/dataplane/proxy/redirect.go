package proxy

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

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
