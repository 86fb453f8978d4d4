package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

func (d *decoder) checkRoutes(c *Config) {
	if len(c.Route) == 0 && !d.refused[to("route")] && !d.refused[to("stream")] {
		d.report(position{1, 1}, root, "at least one [[route]] is needed")
	}
	lines := map[string]int{}
	for i, r := range c.Route {
		p := to("route").at(i)
		if q := p.key("name"); d.given(q) {
			if err := checkRouteName(r.Name); err != nil {
				d.bad(q, "%q %v", r.Name, err)
			} else if lines[r.Name] > 0 {
				d.bad(q, "%q is the name of the route on line %d too", r.Name, lines[r.Name])
			}
		}
		lines[r.Name] = r.Line
		d.checkMatch(c, p, r)
		d.checkAction(c, p, r)
		for k, v := range r.Upgrade {
			if q := p.key("upgrade").at(k); !d.refused[q] && v != "websocket" {
				d.bad(q, "%q is not websocket", v)
			}
		}
		d.between(p.key("timeout").key("total"), r.Timeout.Total, 0, 30*day)
		within(d, p.key("priority"), r.Priority, -1_000_000, 1_000_000)
	}
	if !d.refused[to("route")] && !d.refused[to("listener")] {
		d.checkTies(c)
	}
}

// checkMatch judges which requests a route takes.
func (d *decoder) checkMatch(c *Config, p path, r *Route) {
	for i, h := range r.Host {
		q := p.key("host").at(i)
		if d.refused[q] {
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
	if q := p.key("path"); d.given(q) {
		if err := checkRoutePath(r.Path); err != nil {
			d.bad(q, "%q %v", r.Path, err)
		}
	}
	for i, l := range r.Listener {
		q := p.key("listener").at(i)
		switch {
		case d.refused[q]:
		case c.Listener[l] == nil:
			d.bad(q, "%q is not defined (defined: %s)", l, join(sortedKeys(c.Listener)))
		case slices.Contains(r.Listener[:i], l):
			d.bad(q, "%q is there twice", l)
		}
	}
}

// checkAction judges what is done with the requests of a route.
func (d *decoder) checkAction(c *Config, p path, r *Route) {
	var given []string
	for _, key := range []string{"pool", "to", "respond", "redirect", "split", "files"} {
		if _, ok := d.places[p.key(key)]; ok {
			given = append(given, key)
		}
	}
	if len(given) == 0 {
		d.bad(p, "has no action: exactly one of pool, to, respond and redirect is needed")
	}
	if len(given) > 1 {
		d.bad(p.key(given[1]), "is a second action beside %s: exactly one is needed", given[0])
	}
	if q := p.key("pool"); d.given(q) && (c.Pool[r.Pool] == nil || strings.HasPrefix(r.Pool, anonymous)) {
		msg := fmt.Sprintf("%q is not defined", r.Pool)
		if names := namedPools(c); len(names) > 0 {
			msg += " (defined: " + join(names) + ")"
		} else {
			msg += ": there is no [pool.*]; write to = [...] for servers without a name"
		}
		d.bad(q, "%s", msg)
	}
	if q := p.key("to"); d.given(q) {
		if len(r.To) == 0 {
			d.bad(q, "has no servers")
		} else if pool := c.Pool[anonymous+r.Name]; pool != nil {
			d.checkAddrs(pool, q.at)
			for i, s := range pool.Server {
				r.To[i] = s.Addr
			}
		}
	}
	if r.Respond != nil {
		d.checkRespond(p.key("respond"), r.Respond)
	}
	if r.Redirect != nil {
		d.checkRedirect(p.key("redirect"), r.Redirect)
	}
}

func (d *decoder) checkRespond(p path, v *Respond) {
	within(d, p.key("status"), v.Status, 200, 599)
	if q := p.key("type"); !d.refused[q] && (v.Type == "" || !fieldText(v.Type)) {
		d.bad(q, "%q is no media type", v.Type)
	}
	if q := p.key("body"); v.Body != "" && (v.Status == 204 || v.Status == 205 || v.Status == 304) {
		d.bad(q, "is not allowed with status %d", v.Status) // RFC 9110, 15.3.5, 15.3.6, 15.4.5
	}
}

func (d *decoder) checkRedirect(p path, v *Redirect) {
	if q := p.key("status"); !d.refused[q] && !slices.Contains([]int{301, 302, 303, 307, 308}, v.Status) {
		d.bad(q, "(%d) must be 301, 302, 303, 307 or 308", v.Status)
	}
	q := p.key("to")
	if d.refused[q] || v.To == "https" {
		return
	}
	if v.To == "" {
		d.bad(p, `needs a place to go: "https" or an absolute URL such as "https://example.com{uri}"`)
		return
	}
	plain := strings.NewReplacer("{uri}", "/x", "{path}", "/x", "{host}", "x", "{query}", "x").Replace(v.To)
	if strings.ContainsAny(plain, "{}") {
		d.bad(q, "%q has a placeholder that is not {uri}, {host}, {path} or {query}", v.To)
		return
	}
	u, err := url.Parse(plain)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || !fieldText(v.To) || strings.Contains(v.To, " ") {
		d.bad(q, `%q is neither "https" nor an absolute URL such as "https://example.com{uri}"`, v.To)
	}
}

// checkTies finds routes that no rule tells apart, and routes that never get a request.
// A route bound to a listener goes before one that is not.
func (d *decoder) checkTies(c *Config) {
	type spot struct{ listener, host, path string }
	bound := map[spot][]int{}
	for i, r := range c.Route {
		for _, l := range orAny(r.Listener) {
			for _, h := range orAny(r.Host) {
				s := spot{l, h, r.Path}
				bound[s] = append(bound[s], i)
			}
		}
	}
	for i, r := range c.Route {
		hidden, by, tied := true, -1, -1
		for _, l := range orAny(r.Listener) {
			for _, h := range orAny(r.Host) {
				over := -1
				for _, k := range bound[spot{l, h, r.Path}] {
					switch other := c.Route[k]; {
					case other.Priority > r.Priority:
						over = k
					case other.Priority == r.Priority && k < i:
						tied = k
					}
				}
				if l == "" && over < 0 {
					over = coveredBy(c, func(name string) []int { return bound[spot{name, h, r.Path}] })
				}
				if over < 0 {
					hidden = false
				} else {
					by = over
				}
			}
		}
		p := to("route").at(i)
		switch {
		case tied >= 0:
			d.report(d.where(p), p, "%slines %d and %d match the same requests (%q and %q): change one, or give one a priority",
				d.in(p), c.Route[tied].Line, r.Line, c.Route[tied].Name, r.Name)
		case hidden && c.Route[by].Priority > r.Priority:
			d.warn(c, p, "can never match: line %d matches the same requests with a higher priority", c.Route[by].Line)
		case hidden:
			d.report(d.where(p), p, "%scan never match: line %d matches the same host and path with no condition on every listener",
				d.in(p), c.Route[by].Line)
		}
	}
}

// coveredBy returns a route of those that together take a host and path on every
// listener, or -1.
func coveredBy(c *Config, on func(listener string) []int) int {
	by := -1
	for name := range c.Listener {
		routes := on(name)
		if len(routes) == 0 {
			return -1
		}
		by = max(by, routes[0])
	}
	return by
}

func orAny(names []string) []string {
	if len(names) == 0 {
		return []string{""}
	}
	return names
}

func namedPools(c *Config) []string {
	return slices.DeleteFunc(sortedKeys(c.Pool), func(name string) bool { return strings.HasPrefix(name, anonymous) })
}
