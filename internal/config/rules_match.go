package config

import (
	"slices"
	"strings"
)

// checkMatch judges which requests a route takes.
func (d *decoder) checkMatch(c *Config, p path, r *Route) {
	d.checkHosts(p, r)
	if q := p.key("path"); d.given(q) {
		if _, ok := r.Regex(); ok {
			d.checkPathRegex(q, r.Path)
		} else if path, err := canonicalPath(r.Path); err != nil {
			d.bad(q, "%q %v", r.Path, err)
		} else {
			r.Path = path
		}
	}
	if _, ok := r.Regex(); r.RegexFirst && !ok && !d.spoilt(p.key("path")) {
		d.bad(p.key("regex_first"), `has a meaning only beside a path that is a regular expression, "~" and what it must match`)
	}
	for i, l := range r.Listener {
		q := p.key("listener").at(i)
		switch {
		case d.spoilt(q):
		case c.Listener[l] == nil && d.spoilt(to("listener", l)):
		case c.Listener[l] == nil:
			d.bad(q, "%q is not defined (defined: %s)", l, join(sortedKeys(c.Listener)))
		case slices.Contains(r.Listener[:i], l):
			d.bad(q, "%q is there twice", l)
		}
	}
	d.checkMethods(p.key("method"), r.Method)
	d.checkAskedFields(p.key("header"), r.Header, c.keepsUnderscores(r))
	d.checkAskedParameters(p.key("query"), r.Query)
	for i, client := range r.Client {
		q := p.key("client").at(i)
		if !client.IsValid() {
			continue // reported
		}
		r.Client[i] = client.Masked()
		if slices.Contains(r.Client[:i], r.Client[i]) {
			d.bad(q, "%s is there twice", r.Client[i])
		}
	}
}

func (d *decoder) checkHosts(p path, r *Route) {
	for i, h := range r.Host {
		q := p.key("host").at(i)
		if d.spoilt(q) {
			continue
		}
		host, err := canonicalHost(h)
		if err != nil {
			d.bad(q, "%q %v", h, err)
			continue
		}
		r.Host[i] = host
		if slices.Contains(r.Host[:i], host) {
			d.bad(q, "%q is there twice", host)
		}
	}
}

func (d *decoder) checkPathRegex(p path, value string) {
	d.checkAsked(p, value)
	if d.spoilt(p) {
		return
	}
	expression, _ := regex(value)
	if _, is := d.overlap.common(expression, "^/"); is == disjoint {
		d.bad(p, `%q matches no path in its normal form: it begins with "/", has no empty and no dot segments, escapes in capitals, and no query`, value)
	}
}

func (d *decoder) checkMethods(p path, methods []string) {
	for i, m := range methods {
		q := p.at(i)
		switch {
		case d.spoilt(q):
		case !httpToken(m):
			d.bad(q, "%q is no method", m)
		case m != strings.ToUpper(m):
			d.bad(q, "%q is not %q: the case of a method counts", m, strings.ToUpper(m))
		case m == "CONNECT" || m == "TRACE":
			d.bad(q, "%q is answered 405 on every route", m)
		case slices.Contains(methods[:i], m):
			d.bad(q, "%q is there twice", m)
		}
	}
}

// keepsUnderscores reports whether a listener of r lets fields with an underscore through.
func (c *Config) keepsUnderscores(r *Route) bool {
	for _, l := range c.Listener {
		if l.Underscores == "keep" && r.on(l) {
			return true
		}
	}
	return false
}

// checkAskedFields judges the fields that a route asks for; underscores is whether some have one.
func (d *decoder) checkAskedFields(p path, fields map[string]string, underscores bool) {
	var before []string
	for _, name := range sortedKeys(fields) {
		q, value := p.key(name), fields[name]
		switch {
		case d.spoilt(q):
		case !httpToken(name):
			d.bad(q, "is not the name of a field")
		case strings.Contains(name, "_") && !underscores:
			d.bad(q, "is never there: fields with an underscore in their names are dropped, unless a listener has underscores = \"keep\"")
		case strings.EqualFold(name, "Host"):
			d.bad(q, "has a key of its own: host")
		case slices.ContainsFunc(before, func(b string) bool { return strings.EqualFold(b, name) }):
			d.bad(q, "is there twice; the case of a field's name does not count")
		case !fieldText(value) || strings.TrimSpace(value) != value:
			d.bad(q, "%q can be no value of a field: printable characters of ASCII, and no space around them", value)
		default:
			d.checkAsked(q, value)
		}
		before = append(before, name)
	}
}

func (d *decoder) checkAskedParameters(p path, parameters map[string]string) {
	for _, name := range sortedKeys(parameters) {
		q := p.key(name)
		if d.spoilt(q) {
			continue
		}
		if name == "" {
			d.bad(q, "needs the name of a parameter")
			continue
		}
		d.checkAsked(q, parameters[name])
	}
}
