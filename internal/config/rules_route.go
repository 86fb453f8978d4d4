package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

func (d *decoder) checkRoutes(c *Config) {
	if len(c.Route) == 0 && !c.Cluster.Witness && !d.spoilt(to("route")) && !d.spoilt(to("stream")) {
		d.report(position{line: 1, col: 1}, root, "at least one [[route]] is needed")
	}
	named := map[string]int{}
	for i, r := range c.Route {
		p := to("route").at(i)
		if q := p.key("name"); d.given(q) {
			if err := checkRouteName(r.Name); err != nil {
				d.bad(q, "%q %v", r.Name, err)
			} else if k, twice := named[r.Name]; twice {
				d.bad(q, "%q is the name of the route on %s too", r.Name, d.line(k, i))
			}
		}
		named[r.Name] = i
		d.checkMatch(c, p, r)
		d.checkAction(c, p, r)
		d.checkUse(c, p, r)
		d.checkPages(p.key("error_pages"), r)
		for k, v := range r.Upgrade {
			if q := p.key("upgrade").at(k); !d.spoilt(q) && v != "websocket" {
				d.bad(q, "%q is not websocket", v)
			}
		}
		d.checkSlash(p.key("encoded_slash"), r.Slash)
		d.checkBuffer(c, p, r)
		d.checkTrailers(p, r)
		d.checkMirror(c, p, r)
		d.between(p.key("timeout").key("total"), r.Timeout.Total, 0, 30*day)
		within(d, p.key("priority"), r.Priority, -1_000_000, 1_000_000)
	}
	if !d.spoilt(to("listener")) {
		d.checkOrder(c)
	}
}

// checkBuffer judges what is done with the body of a request.
func (d *decoder) checkBuffer(c *Config, p path, r *Route) {
	q := p.key("buffer")
	switch {
	case !d.given(q) || r.Buffer == 0:
	case !forwards(r) && !d.spoilt(p):
		d.bad(q, "has no meaning without a pool: no server is asked")
	case r.Buffer > c.Limits.Body && !d.spoilt(to("limits").key("body")):
		d.bad(q, "(%s) must not be larger than limits.body (%s): a larger body is refused", r.Buffer, c.Limits.Body)
	}
}

// checkMirror judges where copies of requests go.
func (d *decoder) checkMirror(c *Config, p path, r *Route) {
	if r.Mirror == nil {
		return
	}
	q := p.key("mirror")
	if !forwards(r) && !d.spoilt(p) {
		d.bad(q, "has no meaning without a pool: no request goes on that could be copied")
	}
	within(d, q.key("percent"), r.Mirror.Percent, 1, 100)
	switch pool := q.key("pool"); {
	case d.spoilt(pool) || d.spoilt(to("pool").key(r.Mirror.Pool)):
	case r.Mirror.Pool == "":
		d.bad(q, `needs pool, such as { pool = "next", percent = 10 }`)
	case c.Pool[r.Mirror.Pool] == nil || strings.HasPrefix(r.Mirror.Pool, anonymous):
		d.bad(pool, "%q is not a pool (defined: %s)", r.Mirror.Pool, join(namedPools(c)))
	case c.Pool[r.Mirror.Pool].Protocol != "http1" && !d.spoilt(to("pool", r.Mirror.Pool).key("protocol")):
		d.bad(pool, "%q has protocol = %q; copies of requests over HTTP/2 are not built yet", r.Mirror.Pool, c.Pool[r.Mirror.Pool].Protocol)
	}
}

// checkTrailers judges the trailers that are let through.
func (d *decoder) checkTrailers(p path, r *Route) {
	q := p.key("trailers")
	if len(r.Trailers) > 0 && !forwards(r) && !d.spoilt(p) {
		d.bad(q, "has no meaning without a pool: no server is asked")
	}
	for i, name := range r.Trailers {
		q := q.at(i)
		switch why := trailerOurs(strings.ReplaceAll(strings.ToLower(name), "_", "-")); { // B4
		case d.spoilt(q):
		case !fieldName(name):
			d.bad(q, "%q is no name of a field", name)
		case why != "":
			d.bad(q, "%q is never let through: %s", name, why)
		case slices.ContainsFunc(r.Trailers[:i], func(before string) bool { return strings.EqualFold(before, name) }):
			d.bad(q, "%q is there twice", name)
		}
	}
}

// trailerOurs says why a field is never let through as a trailer, or "" (RFC 9110, 6.5.1).
func trailerOurs(lower string) string {
	switch lower {
	case "host", "via":
		return "it says where the message is going"
	case "authorization", "cookie", "set-cookie", "www-authenticate", "authentication-info":
		return "who sends it is to be known before the body"
	case "content-type", "content-encoding", "content-range", "range", "cache-control", "age", "expires", "vary", "date", "location",
		"retry-after", "pragma", "max-forwards", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range",
		"origin", "referer", "true-client-ip", "x-client-ip", "x-original-url", "x-rewrite-url":
		return "whoever acts on it has to know it before the body"
	}
	if strings.HasPrefix(lower, "x-forwarded-") {
		return "proxyd says itself where a request comes from"
	}
	return requestFieldOurs(lower)
}

// checkTo writes the servers of r.To, whose pool it is, in the one way.
func (d *decoder) checkTo(q path, pool *Pool, r *Route) {
	scheme := ""
	switch {
	case pool.TLS == nil:
	case pool.TLS.Off:
		i := slices.IndexFunc(r.To, func(s string) bool { return !strings.HasPrefix(s, overTLS) })
		d.bad(q.at(i), "%q is spoken to in clear and others by https://; servers of one route are all of one kind", r.To[i])
		return
	default:
		scheme = overTLS
	}
	for i, s := range pool.Server {
		r.To[i] = scheme + s.Addr
	}
}

// forwards says whether the action of r is to ask a server.
func forwards(r *Route) bool { return r.Pool != "" || len(r.To) > 0 || len(r.Split) > 0 }

// checkAction judges what is done with the requests of a route.
func (d *decoder) checkAction(c *Config, p path, r *Route) {
	var given []string
	for _, key := range []string{"pool", "to", "respond", "redirect", "split", "files"} {
		if _, ok := d.places.get(p.key(key)); ok {
			given = append(given, key)
		}
	}
	if len(given) == 0 {
		d.bad(p, "has no action: exactly one of pool, to, split, respond, redirect and files is needed")
	}
	if len(given) > 1 {
		d.bad(p.key(given[1]), "is a second action beside %s: exactly one is needed", given[0])
	}
	if q := p.key("pool"); d.given(q) && !d.spoilt(to("pool").key(r.Pool)) && (c.Pool[r.Pool] == nil || strings.HasPrefix(r.Pool, anonymous)) {
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
		} else if i := slices.IndexFunc(r.To, func(s string) bool { return c.Pool[s] != nil }); i >= 0 {
			d.bad(q.at(i), "needs host:port; the route asks [pool.%[1]s] with pool = %[1]q", r.To[i])
		} else if pool := c.Pool[anonymous+r.Name]; pool != nil {
			d.checkAddrs(pool, q.at)
			d.checkTo(q, pool, r)
		}
	}
	d.checkSplit(c, p.key("split"), r)
	d.checkRewrite(p, r)
	if r.Respond != nil {
		d.checkRespond(p.key("respond"), r.Respond)
	}
	if r.Redirect != nil {
		d.checkRedirect(p.key("redirect"), r.Redirect)
	}
	if r.Files != nil {
		d.checkFiles(p.key("files"), r.Files)
	}
}

func (d *decoder) checkFiles(p path, v *Files) {
	if q := p.key("root"); !d.spoilt(q) {
		switch {
		case v.Root == "":
			d.bad(p, `needs root, such as root = "/srv/www"`)
		case !filepath.IsAbs(v.Root) || strings.ContainsRune(v.Root, 0):
			d.bad(q, "%q is no absolute path", v.Root)
		default:
			v.Root = filepath.Clean(v.Root)
		}
	}
	for i, name := range v.Index {
		q := p.key("index").at(i)
		if !d.spoilt(q) && (name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00")) {
			d.bad(q, "%q is no name of a file that is given out", name)
		}
	}
}

func (d *decoder) checkRespond(p path, v *Respond) {
	within(d, p.key("status"), v.Status, 200, 599)
	if q := p.key("type"); !d.spoilt(q) && (v.Type == "" || !fieldText(v.Type)) {
		d.bad(q, "%q is no media type", v.Type)
	}
	if q := p.key("body"); v.Body != "" && (v.Status == 204 || v.Status == 205 || v.Status == 304) {
		d.bad(q, "is not allowed with status %d", v.Status) // RFC 9110, 15.3.5, 15.3.6, 15.4.5
	}
}

func (d *decoder) checkRedirect(p path, v *Redirect) {
	if q := p.key("status"); !d.spoilt(q) && !slices.Contains([]int{301, 302, 303, 307, 308}, v.Status) {
		d.bad(q, "(%d) must be 301, 302, 303, 307 or 308", v.Status)
	}
	q := p.key("to")
	if d.spoilt(q) || v.To == "https" {
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

func namedPools(c *Config) []string {
	return slices.DeleteFunc(sortedKeys(c.Pool), func(name string) bool { return strings.HasPrefix(name, anonymous) })
}

// line says where a route stands, for a message about the route at near: with its file,
// if that is another.
func (d *decoder) line(i, near int) string {
	at, here := d.places.at(to("route").at(i)).key, d.places.at(to("route").at(near)).key
	if at.file != here.file {
		return fmt.Sprintf("%s:%d", d.sources[at.file].name, at.line)
	}
	return fmt.Sprintf("line %d", at.line)
}
