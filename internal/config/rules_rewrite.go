package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// checkSplit judges the pools among which a route's clients are parted.
func (d *decoder) checkSplit(c *Config, p path, r *Route) {
	total := 0
	for _, name := range sortedKeys(r.Split) {
		q := p.key(name)
		within(d, q, r.Split[name], 0, 1_000_000)
		total += max(r.Split[name], 0)
		if d.given(q) && !d.spoilt(to("pool").key(name)) && (c.Pool[name] == nil || strings.HasPrefix(name, anonymous)) {
			d.bad(q, "is not a pool (defined: %s)", join(namedPools(c)))
		}
	}
	if total == 0 && d.given(p) {
		d.bad(p, "has no pool with a share above 0")
	}
}

// checkSlash judges what becomes of encoded slashes.
func (d *decoder) checkSlash(q path, v string) {
	switch {
	case d.spoilt(q) || v == "keep" || v == "reject":
	case v == "decode":
		d.bad(q, "decode is not offered: the server would be sent another path than the route and its policies were chosen by; it can decode what it gets itself")
	default:
		d.bad(q, "%q is neither keep nor reject", v)
	}
}

// checkRewrite judges what is done to the path before it goes on.
func (d *decoder) checkRewrite(p path, r *Route) {
	strip, rewrite := p.key("strip_prefix"), p.key("rewrite")
	if r.Respond != nil {
		for _, q := range []path{strip, rewrite} {
			if d.given(q) {
				d.bad(q, "has no meaning beside respond: no path goes on")
			}
		}
		return
	}
	if d.given(strip) {
		d.checkStrip(p, r)
	}
	if r.Rewrite == nil {
		return
	}
	from, to := rewrite.key("from"), rewrite.key("to")
	expression, isRegex := regex(r.Rewrite.From)
	switch {
	case d.spoilt(from):
		return
	case !d.given(from) || !isRegex:
		d.bad(from, `needs "~" and a regular expression, such as "~^/items/([0-9]+)$"`)
		return
	}
	re, err := compileRegex(expression)
	if err != nil {
		d.bad(from, "%q %v", r.Rewrite.From, err)
		return
	}
	d.countRegex(from)
	switch _, err := ParseRewrite(r.Rewrite.To, re); {
	case d.spoilt(to):
	case !d.given(to):
		d.bad(rewrite, `needs to = "/what/$1/it/becomes"`)
	case err != nil:
		d.bad(to, "%q %v", r.Rewrite.To, err)
	}
}

// checkStrip sees to it that every request of the route has the prefix.
func (d *decoder) checkStrip(p path, r *Route) {
	q := p.key("strip_prefix")
	prefix, err := canonicalPath(strings.TrimSuffix(r.StripPrefix, "/"))
	switch {
	case err != nil:
		d.bad(q, "%q %v", r.StripPrefix, err)
		return
	case prefix == "" || strings.HasSuffix(prefix, "*"):
		d.bad(q, `%q is no prefix: write it without a star, as in "/api"`, r.StripPrefix)
		return
	}
	r.StripPrefix = prefix
	begins := strings.TrimSuffix(r.Path, "/*") + "/"
	if expression, ok := r.Regex(); ok {
		begins = beginning(expression)
	}
	if !strings.HasPrefix(begins, prefix+"/") && !d.spoilt(p.key("path")) {
		d.bad(q, "%q is not what every path of the route begins with: write path = %q or more", prefix, prefix+"/*")
	}
}

// A RewritePiece is a part of what a path becomes: a text, or a group of the expression.
type RewritePiece struct {
	Text  string
	Group int  // if Text is empty
	Query bool // behind the "?"
}

// ParseRewrite cuts what a path becomes at its groups: $1, ${1}, ${name}; "$$" is a dollar.
// The error follows the text.
func ParseRewrite(text string, re *regexp.Regexp) ([]RewritePiece, error) {
	if text == "" || text[0] != '/' {
		return nil, errors.New(`must begin with "/"`)
	}
	if strings.ContainsAny(text, `#\"`) || !fieldText(text) || strings.Contains(text, " ") {
		return nil, errors.New("must be written as in a request: percent-encoded, without a fragment")
	}
	path, query, more := strings.Cut(text, "?")
	pieces, err := cutGroups(path, re, false)
	if err != nil || !more {
		return pieces, err
	}
	behind, err := cutGroups(query, re, true)
	return append(append(pieces, RewritePiece{Text: "?", Query: true}), behind...), err
}

func cutGroups(text string, re *regexp.Regexp, query bool) ([]RewritePiece, error) {
	var pieces []RewritePiece
	for text != "" {
		plain, rest, found := strings.Cut(text, "$")
		if strings.HasPrefix(rest, "$") {
			plain, rest, found = plain+"$", rest[1:], false
			pieces, text = append(pieces, RewritePiece{Text: plain, Query: query}), rest
			continue
		}
		if plain != "" {
			pieces = append(pieces, RewritePiece{Text: plain, Query: query})
		}
		if !found {
			break
		}
		name, after := "", rest
		if inner, ok := strings.CutPrefix(rest, "{"); ok {
			if name, after, ok = strings.Cut(inner, "}"); !ok {
				return nil, errors.New(`has "${" without "}"`)
			}
		} else {
			n := 0
			for n < len(rest) && n < 2 && '0' <= rest[n] && rest[n] <= '9' {
				n++
			}
			name, after = rest[:n], rest[n:]
		}
		group := re.SubexpIndex(name)
		if n, err := strconv.Atoi(name); err == nil {
			group = n
		}
		if group < 0 || group > re.NumSubexp() {
			return nil, fmt.Errorf(`has $%s, which is no group of from; a dollar alone is "$$"`, name)
		}
		pieces, text = append(pieces, RewritePiece{Group: group, Query: query}), after
	}
	return pieces, nil
}
