package config

import (
	"slices"
	"strings"
)

// anonymous begins the name of a pool that a route's "to" makes. No name of the file
// may hold its colon.
const anonymous = "route:"

// complete fills in what depends on other keys.
func (d *decoder) complete(c *Config) {
	if c.Node.Name == "" && !d.spoilt(to("node", "name")) {
		name, err := d.host.Hostname()
		if err == nil {
			err = checkName(name)
		}
		if err != nil {
			d.report(position{line: 1, col: 1}, root, "the hostname %q cannot be the node's name (%v); set name in [node]", name, err)
		}
		c.Node.Name = name
	}
	c.Cluster.SecretRef = d.secretRef
	if !d.given(to("limits", "uri_bytes")) {
		c.Limits.URIBytes = min(c.Limits.URIBytes, c.Limits.HeaderBytes)
	}
	if len(c.Listener) == 0 && !c.Cluster.Witness && !d.spoilt(to("listener")) {
		c.Listener = defaultListeners(len(c.Cert) > 0 || c.ACME.On())
	}
	d.completeACME(&c.ACME)
	for _, l := range c.Listener {
		if l.ClientCA != "" && l.ClientCert == "" {
			l.ClientCert = "require"
			if slices.ContainsFunc(c.Route, func(r *Route) bool { return r.ClientCert != "" && r.on(l) }) {
				l.ClientCert = "optional"
			}
		}
	}
	if c.TLS.Min == "" {
		c.TLS.Min = map[bool]string{true: "1.3", false: "1.2"}[c.TLS.Profile == "modern"]
	}
	for _, x := range c.Cert {
		if x.Key == "" {
			x.Key = x.Cert
		}
	}
	if !d.given(to("log", "access", "query")) {
		c.Log.Access.Query = c.Log.Access.Format == "combined"
	}
	if c.Trace.OTLP != "" && !d.given(to("trace", "context")) {
		c.Trace.Context = true
	}
	for _, v := range c.VIP {
		if _, given := d.places.get(to("vip", v.Name, "preempt")); v.Spread && !given {
			v.Preempt = Preempt{On: true, After: defaultSpread}
		}
	}
	d.completeTracks(c)
	for _, p := range c.Pool {
		d.completePool(p)
	}
	d.nameRoutes(c)
	for _, r := range c.Route {
		if len(r.To) == 0 {
			continue
		}
		p := defaultPool()
		p.Name, p.Servers = anonymous+r.Name, d.completeTo(p, r)
		d.completePool(p)
		c.Pool[p.Name] = p
		if r.Pool == "" {
			r.Pool = p.Name
		}
	}
}

// overTLS begins a server of route.to that is spoken to by TLS.
const overTLS = "https://"

// completeTo returns the addresses of the servers in r.To, whose pool is p.
func (d *decoder) completeTo(p *Pool, r *Route) []string {
	addrs := make([]string, len(r.To))
	secure := 0
	for i, text := range r.To {
		host, ok := strings.CutPrefix(text, overTLS)
		if addrs[i] = text; !ok {
			continue
		}
		secure++
		if host = strings.TrimSuffix(host, "/"); !strings.Contains(host[strings.LastIndexByte(host, ']')+1:], ":") {
			host += ":443"
		}
		addrs[i] = host
	}
	if secure > 0 {
		p.TLS = &PoolTLS{Min: "1.2", Off: secure < len(r.To)} // off: checkTo refuses the mixture
	}
	return addrs
}

// completePool moves the short form of the servers into the long one. Eject and breaker
// judge by shares: a fixed number of failures would be there first.
func (d *decoder) completePool(p *Pool) {
	short := make([]Server, 0, len(p.Servers)+len(p.Server))
	for _, addr := range p.Servers {
		s := *defaultServer()
		s.Addr = addr
		short = append(short, s)
	}
	p.Server, p.Servers = append(short, p.Server...), nil
	if (p.Eject != nil || p.Breaker != nil) && !d.given(to("pool", p.Name, "passive", "max_fails")) {
		p.Passive.MaxFails = 0
	}
	if t := p.TLS; t != nil && t.Key == "" {
		t.Key = t.Cert
	}
	if p.Check != nil {
		d.completeCheck(to("pool", p.Name, "check"), p.Check)
	}
	if p.Balance == "hash" && p.HashKey == "" {
		p.HashKey = defaultHashKey
	}
}

// completeCheck keeps the default time-out below an interval that was made short, and
// takes the defaults of a request from a check that makes none.
func (d *decoder) completeCheck(p path, v *Check) {
	if !d.given(p.key("timeout")) {
		v.Timeout = min(v.Timeout, v.Interval/2)
	}
	if v.Type == "http" {
		return
	}
	for key, value := range map[string]*string{"method": &v.Method, "path": &v.Path, "status": &v.Status} {
		if !d.given(p.key(key)) {
			*value = ""
		}
	}
}

// nameRoutes gives each route without a name one of its host and path, unique in the
// file.
func (d *decoder) nameRoutes(c *Config) {
	own, base := make([]string, len(c.Route)), make([]string, len(c.Route))
	for i, r := range c.Route {
		at := d.where(to("route").at(i))
		r.File, r.Line = d.sources[at.file].name, int(at.line)
		if r.Path == "/*" {
			r.Path = ""
		}
		host := ""
		if len(r.Host) > 0 {
			host = r.Host[0]
		}
		own[i], base[i] = r.Name, routeBase(host, r.Path)
	}
	for i, name := range uniqueNames(own, base) {
		c.Route[i].Name = name
	}
}
