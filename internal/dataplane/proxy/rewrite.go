package proxy

import (
	"bytes"
	"regexp"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A rewrite is what a route does to the path before it goes on: it takes a prefix off,
// then puts what an expression found in its place.
type rewrite struct {
	prefix []byte // that every path of the route begins with; empty: none
	from   *regexp.Regexp
	to     []config.RewritePiece
	query  bool // to has a query
	drop   bool // the client's query goes no further
}

// newRewrite returns nil if the route leaves the path as it is.
func newRewrite(c *config.Route) (*rewrite, error) {
	if c.StripPrefix == "" && c.Rewrite == nil {
		return nil, nil
	}
	w := &rewrite{prefix: []byte(c.StripPrefix)}
	if c.Rewrite == nil {
		return w, nil
	}
	var err error
	if w.from, err = regexp.Compile(strings.TrimPrefix(c.Rewrite.From, "~")); err != nil {
		return nil, err
	}
	w.to, err = config.ParseRewrite(c.Rewrite.To, w.from)
	_, _, w.query = strings.Cut(c.Rewrite.To, "?")
	w.drop = strings.HasSuffix(c.Rewrite.To, "?")
	return w, err
}

// apply changes the path of x, and its query if the route says so. What the client asked
// for stays in x.Mark. It is false if what came out is no path that may go on (C3): one with
// dot segments, or with escapes that no normal form has.
func (w *rewrite) apply(x *dataplane.Exchange) bool {
	q := &x.Request
	path, query := q.Path, q.Query
	switch rest, found := bytes.CutPrefix(path, w.prefix); {
	case found && len(rest) == 0:
		path = rootPath
	case found && rest[0] == '/':
		path = rest
	}
	if w.from != nil {
		if at := w.from.FindSubmatchIndex(path); at != nil {
			var ok bool
			if path, query, ok = w.become(x, path, at); !ok {
				return false
			}
		}
	}
	x.Mark.Path, x.Mark.Query = q.Path, q.Query
	q.Path, q.Query = path, query
	return true
}

// leavesNothing reports whether the client asked for the prefix alone, without a slash, and
// what went on is the root. w may be nil.
func (w *rewrite) leavesNothing(x *dataplane.Exchange) bool {
	if w == nil || len(w.prefix) == 0 || !bytes.Equal(x.Request.Path, rootPath) {
		return false
	}
	asked, _ := x.Asked()
	return bytes.Equal(asked, w.prefix)
}

// become returns what the path and the query become with the groups found at.
func (w *rewrite) become(x *dataplane.Exchange, path []byte, at []int) (newPath, newQuery []byte, ok bool) {
	from, cut := len(x.Text), -1
	for _, p := range w.to {
		switch {
		case p.Text == "?" && p.Query && cut < 0:
			cut = len(x.Text)
		case p.Text != "":
			x.Text = append(x.Text, p.Text...)
		case at[2*p.Group] < 0: // a group that took no part
		case p.Query:
			x.Text = appendQueryValue(x.Text, path[at[2*p.Group]:at[2*p.Group+1]])
		default:
			x.Text = append(x.Text, path[at[2*p.Group]:at[2*p.Group+1]]...)
		}
	}
	written := x.Text[from:len(x.Text):len(x.Text)]
	newQuery = x.Request.Query
	if w.query {
		written, newQuery = x.Text[from:cut:cut], x.Text[cut:len(x.Text):len(x.Text)]
		switch {
		case w.drop:
			if newQuery = newQuery[:max(len(newQuery)-1, 0)]; len(newQuery) == 0 {
				newQuery = nil
			}
		case len(x.Request.Query) > 0:
			newQuery = x.Keep(newQuery, []byte("&"), x.Request.Query)
		}
	}
	if clean(written) != nil || clean(newQuery) != nil || hasDots(written) {
		return nil, nil, false
	}
	start := len(x.Text)
	text, err := http1.AppendPath(x.Text, written)
	if err != nil {
		return nil, nil, false
	}
	x.Text = text
	return text[start:len(text):len(text)], newQuery, true
}

// hasDots reports whether a path has a dot segment.
func hasDots(path []byte) bool {
	for more := true; more; {
		var segment []byte
		segment, path, more = bytes.Cut(path, slash)
		if string(segment) == "." || string(segment) == ".." {
			return true
		}
	}
	return false
}

// appendQueryValue appends a part of a path so that it cannot end the parameter that it
// becomes the value of.
func appendQueryValue(t, value []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range value {
		if c == '&' || c == '=' || c == '+' || c == ';' {
			t = append(t, '%', hex[c>>4], hex[c&15])
		} else {
			t = append(t, c)
		}
	}
	return t
}

var rootPath = []byte("/")
