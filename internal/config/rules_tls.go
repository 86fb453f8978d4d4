package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"proxyd/internal/cert"
)

// checkTLS judges [tls], the certificates, and what listeners want of them. Certificates
// are read: what would keep this node from starting is an error, and what only clients
// would not take is a warning.
func (d *decoder) checkTLS(c *Config) {
	t, p := &c.TLS, to("tls")
	if q := p.key("profile"); !d.spoilt(q) && t.Profile != "modern" && t.Profile != "intermediate" {
		d.bad(q, "%q is neither modern (TLS 1.3 alone) nor intermediate (TLS 1.2 too)", t.Profile)
	}
	switch q := p.key("min"); {
	case d.spoilt(q):
	case t.Min != "1.2" && t.Min != "1.3":
		d.bad(q, `%q is neither "1.2" nor "1.3"; what is older is not safe`, t.Min)
	case t.Min == "1.2" && t.Profile == "modern" && d.given(q):
		d.bad(q, `is "1.2", but profile = "modern" is TLS 1.3 alone; one of the two must go`)
	}
	secure := d.checkListenersTLS(c)
	d.checkClientCerts(c)
	d.checkCerts(c)
	at := to("cert")
	if len(c.Cert) > 0 && len(secure) == 0 && !c.Cluster.Witness && !d.spoilt(to("listener")) {
		d.warn(c, at.at(0), "is used by no listener: none has tls = true")
	}
}

// checkListenersTLS returns the names of the listeners with tls.
func (d *decoder) checkListenersTLS(c *Config) (secure []string) {
	for _, name := range sortedKeys(c.Listener) {
		if c.Listener[name].TLS {
			secure = append(secure, name)
		}
	}
	for _, name := range sortedKeys(c.Listener) {
		l, p := c.Listener[name], to("listener", name)
		if l.TLS && len(c.Cert) == 0 && !c.ACME.On() && !d.spoilt(to("cert")) && !d.spoilt(to("acme")) {
			d.bad(p.key("tls"), "needs a certificate: write [[cert]] with cert = \"/etc/ssl/shop.crt\" and key = \"/etc/ssl/shop.key\", or acme.email for one that proxyd gets by itself")
		}
		d.checkHTTP2(l, p)
		q := p.key("redirect")
		switch {
		case l.Redirect == "" || d.spoilt(q):
		case l.Redirect != "https":
			d.bad(q, `%q is not "https"; another redirect is for a route: [[route]] with redirect`, l.Redirect)
		case l.TLS:
			d.bad(q, "would send clients of https to https, for ever; it is for a listener without tls")
		case len(secure) == 0:
			d.warn(c, q, "sends clients to port 443, where no listener of this node has tls")
		}
	}
	return secure
}

// checkHTTP2 refuses keys that would do nothing. Without tls the default of http2 is false.
func (d *decoder) checkHTTP2(l *Listener, p path) {
	q := p.key("http2")
	switch {
	case !l.HTTP2 || l.TLS:
	case !d.given(q):
		l.HTTP2 = false
	default:
		d.bad(q, "is for a listener with tls = true, where clients choose; clients that know beforehand speak HTTP/2 in clear with h2c = true")
	}
	if q := p.key("h2c"); l.H2C && l.TLS {
		d.bad(q, "is HTTP/2 in clear, and this listener has tls = true: http2 is on by default there")
	}
}

func (d *decoder) checkCerts(c *Config) {
	disk := d.disk()
	seen := map[Cert]bool{}
	for i, x := range c.Cert {
		p := to("cert").at(i)
		q, k := p.key("cert"), p.key("key")
		switch {
		case d.spoilt(q) || d.spoilt(k):
			continue
		case x.Cert == "":
			d.bad(p, "needs a certificate, such as cert = \"/etc/ssl/shop.crt\"")
			continue
		case !filepath.IsAbs(x.Cert):
			d.bad(q, "needs an absolute path, not %q", x.Cert)
			continue
		case !filepath.IsAbs(x.Key):
			d.bad(k, "needs an absolute path, not %q", x.Key)
			continue
		case seen[*x]:
			d.bad(q, "%s is there twice", x.Cert)
			continue
		}
		seen[*x] = true
		if c.Cluster.Witness {
			continue // it serves nobody, and need not have the files
		}
		read, err := disk.Load(cert.Pair{Cert: x.Cert, Key: x.Key})
		if err != nil {
			at := p
			if strings.HasPrefix(err.Error(), "key ") && d.given(k) {
				at = k
			}
			d.report(d.where(at), at, "%v", err)
			continue
		}
		d.certified = append(d.certified, read.Names...)
		for _, doubt := range read.Doubts(time.Now()) {
			at := d.where(p)
			c.Warnings = append(c.Warnings, Problem{File: d.sources[at.file].name, Line: int(at.line), Col: int(at.col), Msg: "warning: " + doubt})
		}
	}
}

// checkClientCerts judges what listeners and routes want of the certificates of clients.
func (d *decoder) checkClientCerts(c *Config) {
	for _, name := range sortedKeys(c.Listener) {
		l, p := c.Listener[name], to("listener", name)
		q, k := p.key("client_ca"), p.key("client_cert")
		switch {
		case l.ClientCA == "":
			if d.given(k) && !d.spoilt(q) {
				d.bad(k, "needs client_ca beside it: by whom the certificates are to be signed")
			}
			continue
		case !l.TLS:
			d.bad(q, "needs tls = true: there are no certificates in clear")
		case !d.spoilt(k) && l.ClientCert != "require" && l.ClientCert != "optional":
			d.bad(k, "%q is neither require nor optional", l.ClientCert)
		}
		d.readRoots(c, q, l.ClientCA)
		if open := c.openRoutes(l); l.ClientCert == "optional" && !d.given(k) && len(open) > 0 {
			d.warn(c, q, "is not required of every client, since a route has client_cert; these take clients without a certificate: %s. If that is meant, say client_cert = \"optional\" here", join(open))
		}
	}
	for i, r := range c.Route {
		q := to("route").at(i).key("client_cert")
		switch {
		case r.ClientCert == "" || d.spoilt(q):
		case r.ClientCert != "require" && r.ClientCert != "optional":
			d.bad(q, "%q is neither require nor optional", r.ClientCert)
		case !slices.ContainsFunc(sortedKeys(c.Listener), func(name string) bool { return c.Listener[name].ClientCA != "" && r.on(c.Listener[name]) }):
			d.bad(q, "needs a listener with tls = true and client_ca: clients of this route are asked for no certificate")
		}
	}
}

// on reports whether requests that came in at l may be r's.
func (r *Route) on(l *Listener) bool {
	return len(r.Listener) == 0 || slices.Contains(r.Listener, l.Name)
}

// openRoutes are the names of the routes of l that do not say what they want.
func (c *Config) openRoutes(l *Listener) (names []string) {
	for _, r := range c.Route {
		if r.ClientCert == "" && r.on(l) {
			names = append(names, quote(r.Name))
		}
	}
	return names
}

// checkPoolTLS judges how the servers of a pool are spoken to.
func (d *decoder) checkPoolTLS(c *Config, p path, pool *Pool) {
	t, q := pool.TLS, p.key("tls")
	if check := pool.Check; check != nil && check.TLS != nil && *check.TLS && (t == nil || t.Off) && !d.spoilt(q) {
		d.bad(p.key("check").key("tls"), "needs tls in the pool, which says how its servers are spoken to")
	}
	if t == nil || t.Off {
		return
	}
	if m := q.key("min"); !d.spoilt(m) && t.Min != "1.2" && t.Min != "1.3" {
		d.bad(m, `%q is neither "1.2" nor "1.3"; what is older is not safe`, t.Min)
	}
	if n := q.key("name"); d.given(n) {
		if _, err := netip.ParseAddr(t.Name); err != nil && !hostName(strings.ToLower(t.Name)) {
			d.bad(n, "%q is neither a host name nor an IP address", t.Name)
		}
	}
	if t.Insecure {
		d.warn(c, q.key("insecure"), "leaves the servers' certificates unverified: whoever is on the way can read and change everything")
		if d.given(q.key("ca")) {
			d.bad(q.key("ca"), "has no meaning beside insecure = true, which verifies nothing")
		}
	}
	if k := q.key("key"); d.given(k) && t.Cert == "" {
		d.bad(k, "has no meaning without cert")
	}
	d.readRoots(c, q.key("ca"), t.CA)
	d.readPair(c, q.key("cert"), q.key("key"), cert.Pair{Cert: t.Cert, Key: t.Key})
}

// disk is where certificates are.
func (d *decoder) disk() cert.Disk {
	return cert.Disk{Getenv: d.host.Getenv, Stat: d.host.Stat, ReadFile: d.host.ReadFile}
}

// readRoots reads the authorities that p names, if any.
func (d *decoder) readRoots(c *Config, p path, name string) {
	switch {
	case name == "" || d.spoilt(p):
	case !filepath.IsAbs(name):
		d.bad(p, "needs an absolute path, not %q", name)
	case c.Cluster.Witness: // it serves nobody, and need not have the files
	default:
		roots, err := d.disk().LoadRoots(name)
		if err != nil {
			d.report(d.where(p), p, "%v", err)
			return
		}
		for _, doubt := range roots.Doubts(time.Now()) {
			d.doubt(c, p, doubt)
		}
	}
}

// readPair reads the certificate with its key that p and k name, if any.
func (d *decoder) readPair(c *Config, p, k path, pair cert.Pair) {
	switch {
	case pair.Cert == "" || d.spoilt(p) || d.spoilt(k):
		return
	case !filepath.IsAbs(pair.Cert):
		d.bad(p, "needs an absolute path, not %q", pair.Cert)
		return
	case !filepath.IsAbs(pair.Key):
		d.bad(k, "needs an absolute path, not %q", pair.Key)
		return
	case c.Cluster.Witness:
		return
	}
	read, err := d.disk().Load(pair)
	if err != nil {
		at := p
		if strings.HasPrefix(err.Error(), "key ") && d.given(k) {
			at = k
		}
		d.report(d.where(at), at, "%v", err)
		return
	}
	for _, doubt := range read.ClientDoubts(time.Now()) {
		d.doubt(c, p, doubt)
	}
}

// doubt keeps a remark on a file.
func (d *decoder) doubt(c *Config, p path, text string) {
	at := d.where(p)
	c.Warnings = append(c.Warnings, Problem{File: d.sources[at.file].name, Line: int(at.line), Col: int(at.col), Msg: "warning: " + text})
}

// HTTPSPort is the port to which a redirect to https leads: 443, which goes without saying,
// unless all listeners with tls are elsewhere, and on one port.
func (c *Config) HTTPSPort() string {
	var ports []string
	for _, l := range c.Listener {
		for _, a := range l.Address {
			if at, err := parseListenAddr(a); err == nil && l.TLS {
				ports = append(ports, strconv.Itoa(int(at.port)))
			}
		}
	}
	slices.Sort(ports)
	if ports = slices.Compact(ports); len(ports) == 1 {
		return ports[0]
	}
	return "443"
}
