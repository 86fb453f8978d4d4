package config

import (
	"slices"
	"strings"
	"time"
)

func (d *decoder) checkListeners(c *Config) {
	type bound struct {
		listener string
		addr     listenAddr
	}
	var all []bound
	for _, name := range sortedKeys(c.Listener) {
		l, p := c.Listener[name], to("listener", name)
		q := p.key("address")
		if len(l.Address) == 0 && !d.spoilt(q) {
			d.bad(p, "needs an address, such as address = \":80\"")
		}
		if q := p.key("http3"); l.HTTP3 && !d.spoilt(q) {
			switch {
			case !l.TLS:
				d.bad(q, "is for a listener with tls = true: HTTP/3 is never in clear")
			case l.Proxied:
				d.bad(q, "has no PROXY header, which proxy_protocol wants of every client; one of the two must go")
			}
		}
		if q := p.key("proxy_protocol"); l.Proxied && len(c.Node.TrustedProxies) == 0 && !d.spoilt(to("node").key("trusted_proxies")) {
			d.bad(q, "lets nobody connect, since node.trusted_proxies is empty: write there the proxies before this listener")
		}
		if q := p.key("underscores"); !d.spoilt(q) && !slices.Contains([]string{"drop", "keep", "reject"}, l.Underscores) {
			d.bad(q, "%q is not drop, keep or reject", l.Underscores)
		}
		for i, text := range l.Address {
			a, err := parseListenAddr(text)
			if err != nil {
				if !d.spoilt(q.at(i)) {
					d.bad(q.at(i), "%v", err)
				}
				continue
			}
			l.Address[i] = a.String()
			for _, b := range all {
				if a.overlaps(b.addr) {
					d.bad(q.at(i), "%s is taken by %s of listener %q", a, b.addr, b.listener)
				}
			}
			all = append(all, bound{name, a})
		}
	}
}

func (d *decoder) checkLimits(l *Limits) {
	p := to("limits")
	within(d, p.key("conns"), l.Conns, 1, 10_000_000)
	within(d, p.key("conns_per_ip"), l.ConnsPerIP, 0, 10_000_000)
	within(d, p.key("header_bytes"), l.HeaderBytes, 1<<10, 1<<20)
	within(d, p.key("uri_bytes"), l.URIBytes, 64, 1<<20)
	within(d, p.key("fields"), l.Fields, 10, 10_000)
	within(d, p.key("requests"), l.Requests, 0, 1_000_000_000)
	within(d, p.key("body"), l.Body, 1, 1<<50)
	within(d, p.key("held"), l.Held, 1<<20, 1<<50)
	d.between(p.key("header_time"), l.HeaderTime, 100*time.Millisecond, time.Hour)
	within(d, p.key("handshakes"), l.Handshakes, 1, 10_000_000)
	within(d, p.key("handshakes_per_ip"), l.HandshakesPerIP, 0, 10_000_000)
	d.between(p.key("handshake_time"), l.HandshakeTime, 100*time.Millisecond, time.Hour)
	d.between(p.key("idle"), l.Idle, 100*time.Millisecond, day)
	within(d, p.key("min_rate"), l.MinRate, 0, 1<<30)
	if !d.spoilt(p.key("uri_bytes")) && !d.spoilt(p.key("header_bytes")) && l.URIBytes > l.HeaderBytes {
		d.bad(p.key("uri_bytes"), "(%s) must not be larger than header_bytes (%s): the head includes the URI", l.URIBytes, l.HeaderBytes)
	}
}

func (d *decoder) checkPools(c *Config) {
	used := map[string]bool{}
	for _, r := range c.Route {
		used[r.Pool] = true
		for name := range r.Split {
			used[name] = true
		}
		if r.Mirror != nil {
			used[r.Mirror.Pool] = true
		}
	}
	for _, name := range sortedKeys(c.Pool) {
		if strings.HasPrefix(name, anonymous) {
			continue // judged with its route
		}
		pool, p := c.Pool[name], to("pool", name)
		d.checkServers(p, pool)
		d.checkBalance(p, pool)
		d.checkHost(p, pool)
		d.checkPoolTLS(c, p, pool)
		d.checkProtocol(p, pool)
		if q := p.key("location"); !d.spoilt(q) && pool.Location != "rewrite" && pool.Location != "keep" {
			d.bad(q, "%q is neither rewrite nor keep", pool.Location)
		}
		within(d, p.key("proxy_protocol"), pool.Proxied, 0, 2)
		d.checkPassive(p.key("passive"), pool.Passive)
		if pool.Check != nil {
			d.checkCheck(p.key("check"), pool.Check)
		}
		d.checkOutliers(p, pool)
		d.checkRetry(p.key("retry"), pool.Retry)
		d.checkTimeout(p.key("timeout"), pool.Timeout)
		if q := p.key("request_framing"); !d.spoilt(q) && pool.Framing != "as-sent" && pool.Framing != "length" {
			d.bad(q, "%q is not as-sent or length", pool.Framing)
		}
		if !used[name] {
			d.warn(c, p, "is used by no route")
		}
	}
}

// checkProtocol judges what the servers of a pool speak, and what that excludes.
func (d *decoder) checkProtocol(p path, pool *Pool) {
	q := p.key("protocol")
	if d.spoilt(q) {
		return
	}
	if pool.Protocol == "http1" {
		if check := pool.Check; check != nil && check.Type == "grpc" {
			d.bad(p.key("check").key("type"), "grpc asks by HTTP/2: write protocol = \"h2c\", or \"h2\" with tls")
		}
		return
	}
	sealed := pool.TLS != nil && !pool.TLS.Off
	switch {
	case pool.Protocol != "h2" && pool.Protocol != "h2c":
		d.bad(q, "%q is not http1, h2 or h2c", pool.Protocol)
		return
	case d.spoilt(p.key("tls")):
	case pool.Protocol == "h2" && !sealed:
		d.bad(q, "h2 needs tls, by which it is agreed on; h2c is HTTP/2 in clear")
	case pool.Protocol == "h2c" && sealed:
		d.bad(q, "h2c is in clear; with tls it is h2")
	}
	if pool.Proxied != 0 {
		d.bad(p.key("proxy_protocol"), "a connection of protocol %s is for all clients, and its PROXY header would tell of one", pool.Protocol)
	}
}

func (d *decoder) checkServers(p path, pool *Pool) {
	short, long := p.key("servers"), p.key("server")
	if len(pool.Server) == 0 && !d.spoilt(p.key("discover")) && !d.spoilt(short) && !d.spoilt(long) {
		d.bad(p, "has no servers: write servers = [\"10.0.1.5:8080\"]")
	}
	shorts := 0
	for _, ok := d.places.get(short.at(shorts)); ok; _, ok = d.places.get(short.at(shorts)) {
		shorts++
	}
	place := func(i int) path {
		if i < shorts {
			return short.at(i)
		}
		return long.at(i - shorts).key("addr")
	}
	d.checkAddrs(pool, place)
	for i, s := range pool.Server {
		if i >= shorts {
			within(d, long.at(i-shorts).key("weight"), s.Weight, 1, 1000)
			within(d, long.at(i-shorts).key("max_conns"), s.MaxConns, 0, 1_000_000)
			if q := long.at(i - shorts).key("zone"); d.given(q) {
				if err := checkName(s.Zone); err != nil {
					d.bad(q, "%q %v", s.Zone, err)
				}
			}
		}
	}
}

// checkAddrs judges the addresses of a pool's servers; place tells where each stands.
func (d *decoder) checkAddrs(pool *Pool, place func(int) path) {
	seen := map[string]bool{}
	for i := range pool.Server {
		s := &pool.Server[i]
		if d.spoilt(place(i)) {
			continue
		}
		if s.Addr == "" {
			d.bad(place(i), "needs host:port")
			continue
		}
		addr, err := parseServerAddr(s.Addr)
		if err != nil {
			d.bad(place(i), "%v", err)
			continue
		}
		s.Addr = addr
		if seen[addr] {
			d.bad(place(i), "%q is there twice", addr)
		}
		seen[addr] = true
	}
}

func (d *decoder) checkHost(p path, pool *Pool) {
	if q := p.key("host"); d.given(q) && pool.Host != "client" && pool.Host != "server" {
		if !hostPort(pool.Host) {
			d.bad(q, "%q is neither client, server nor a host name", pool.Host)
		}
	}
}

func (d *decoder) checkTimeout(p path, v Timeout) {
	d.between(p.key("connect"), v.Connect, time.Millisecond, time.Hour)
	d.between(p.key("send"), v.Send, time.Millisecond, day)
	d.between(p.key("read"), v.Read, time.Millisecond, day)
	d.between(p.key("tunnel"), v.Tunnel, time.Millisecond, 365*day)
	d.between(p.key("idle"), v.Idle, time.Millisecond, day)
}
