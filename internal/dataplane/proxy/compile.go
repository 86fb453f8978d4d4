package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gaissmai/bart"

	"proxyd/internal/cert"
	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/files"
	"proxyd/internal/dataplane/filter"
	"proxyd/internal/dataplane/route"
	"proxyd/internal/dataplane/upstream"
)

const (
	// maxRouteLabels is how many routes have a label of their own in the metrics. With
	// more of them the label is the pool.
	maxRouteLabels = 1000

	// rateWindow is over how long limits.min_rate is averaged (HTTP-SAFETY E1).
	rateWindow = 10 * time.Second

	unmatchedName = "unmatched"
	toHTTPSName   = "to-https"
	challengeName = "acme-challenge"

	// maxAttempts is for how many Mark.Tried has room: all but the last one are in it.
	maxAttempts = len(dataplane.Mark{}.Tried) + 1
)

// compile makes a snapshot of c with the weights that o overrides. It opens nothing, starts nothing and changes nothing
// of old (nil for the first), so whatever goes wrong here leaves no trace.
func compile(c *config.Config, old *snapshot, o Steering, key []byte, listeners int, trust *cert.Trust, env filter.Env) (*snapshot, error) {
	s := &snapshot{
		generation: 1,
		conf:       c,
		pools:      make(map[string]*upstream.Pool, len(c.Pool)),
		counters:   make(map[string]*routeCounters),
		trace:      newTracing(c.Trace),
		own:        ownNames(c),
		hsts:       hstsValue(c.TLS.HSTS),
	}
	if old != nil {
		s.generation = old.generation + 1
	}
	if len(c.Node.TrustedProxies) > 0 {
		s.trusted = new(bart.Lite)
		for _, p := range c.Node.TrustedProxies {
			s.trusted.Insert(p)
		}
	}
	var wrong []error
	for name, conf := range c.Pool {
		var before *upstream.Pool
		if old != nil {
			before = old.pools[name]
		}
		p, err := upstream.New(o.weighted(conf), before, upstream.Place{Zone: c.Node.Zone, Key: key, TLS: secureOf(conf, trust, before)})
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		s.pools[name] = p
	}
	var err error
	if s.table, err = route.New(c.Route); err != nil {
		wrong = append(wrong, err)
	}
	s.routes = make([]*compiledRoute, len(c.Route))
	for i, conf := range c.Route {
		if err := s.compileRoutes(conf, i, env); err != nil {
			wrong = append(wrong, fmt.Errorf("route %q: %w", conf.Name, err))
		}
	}
	if err := s.compileBuiltin(); err != nil {
		wrong = append(wrong, err)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	for _, r := range s.routes[:len(s.routes)-1] {
		r.counters = s.countersFor(r, old, listeners)
		if r.mirror != nil {
			r.mirror.counters = &r.counters.mirror
		}
	}
	s.probe().counters.grow(listeners)
	return s, nil
}

// compileRoutes makes the route of a place in the file, and behind all others one for each
// further pool of a split.
func (s *snapshot) compileRoutes(conf *config.Route, index int, env filter.Env) (err error) {
	s.bySender = s.bySender || s.table != nil && s.table.BySender() || conf.Split != nil
	if conf.Mirror != nil && s.pools[conf.Mirror.Pool] == nil {
		return fmt.Errorf("mirror: pool %q is not defined", conf.Mirror.Pool)
	}
	if conf.Split == nil {
		s.routes[index], err = s.compileRoute(conf, conf.Pool, index, env)
		return err
	}
	var all split
	for _, pool := range splitPools(conf) {
		at := index
		if len(all) > 0 {
			at = len(s.routes)
			s.routes = append(s.routes, nil)
		}
		if s.routes[at], err = s.compileRoute(conf, pool, at, env); err != nil {
			return err
		}
		all.add(s.routes[at], conf.Split[pool])
	}
	if len(all) == 0 {
		return errors.New("split: no pool has a share")
	}
	s.routes[index].split = all
	return nil
}

// compileBuiltin makes the route of listeners that send everybody to https, that of what a CA
// asks, those of requests that no other takes, then that of Probe.
func (s *snapshot) compileBuiltin() error {
	from := len(s.routes)
	add := func(name string, r *compiledRoute) *compiledRoute {
		r.Route = dataplane.Route{Name: name, Index: len(s.routes), Log: true, BodyBytes: int64(s.conf.Limits.Body)}
		s.routes = append(s.routes, r)
		return r
	}
	s.toHTTPS = make(map[string]*compiledRoute)
	for name, l := range s.conf.Listener {
		if l.Redirect == "" {
			continue
		}
		if len(s.toHTTPS) == 0 {
			site := "https://{host}"
			if port := s.conf.HTTPSPort(); port != "443" {
				site += ":" + port
			}
			t, err := newTemplate(&config.Redirect{To: site + "{uri}"})
			if err != nil {
				return fmt.Errorf("listener %q: %w", name, err)
			}
			add(toHTTPSName, &compiledRoute{redirect: t})
		}
		s.toHTTPS[name] = s.routes[from]
	}
	if s.conf.ACME.On() {
		s.challenge = add(challengeName, &compiledRoute{})
	}
	kinds := map[config.Unknown]*compiledRoute{
		"421":   add(unmatchedName, &compiledRoute{answer: newAnswer(421, unknownHost)}),
		"close": add(unmatchedName, &compiledRoute{silent: true}),
	}
	s.unknown = make(map[string]*compiledRoute)
	for name, l := range s.conf.Listener {
		if r := kinds[l.Unknown]; r != nil {
			s.unknown[name] = r
		}
	}
	add(unmatchedName, &compiledRoute{answer: newAnswer(404, noRoute)})
	probe := add("probe", &compiledRoute{counters: &routeCounters{label: "probe"}})
	probe.answer = newAnswer(404, noRoute) // never given: a probe is answered before its route is asked
	probe.Log = false
	s.builtin = len(s.routes) - from
	return nil
}

func (s *snapshot) compileRoute(conf *config.Route, pool string, index int, env filter.Env) (*compiledRoute, error) {
	r := &compiledRoute{Route: dataplane.Route{
		Name:      conf.Name,
		Pool:      pool,
		BodyBytes: int64(s.conf.Limits.Body),
		Timeout:   dataplane.Timeouts{Total: conf.Timeout.Total},
		Log:       conf.Log,
		Index:     index,
	}, policies: conf.Use, pages: newPages(conf.Pages)}
	r.vouched, r.slashes = conf.ClientCert == "require", conf.Slash == "reject"
	if err := s.usePolicies(r, conf, env); err != nil {
		return nil, err
	}
	var err error
	if r.rewrite, err = newRewrite(conf); err != nil {
		return nil, err
	}
	switch {
	case conf.Respond != nil:
		r.answer = configured(conf.Respond)
	case conf.Redirect != nil:
		t, err := newTemplate(conf.Redirect)
		if err != nil {
			return nil, err
		}
		r.redirect = t
	case conf.Files != nil:
		r.files = files.New(conf.Files.Root, conf.Files.Index)
		r.Heavy = true // a disk may be slow
	default:
		r.pool = s.pools[pool]
		if r.pool == nil {
			return nil, fmt.Errorf("pool %q is not defined", pool)
		}
		r.WebSocket = slices.Contains(conf.Upgrade, "websocket")
		r.Buffer = int64(conf.Buffer)
		for _, name := range conf.Trailers {
			r.Trailers = append(r.Trailers, []byte(strings.ToLower(name)))
		}
		r.followPool()
		if conf.Mirror != nil {
			r.mirror = &mirror{pool: conf.Mirror.Pool, percent: uint64(conf.Mirror.Percent)}
			r.Buffer = max(r.Buffer, mirrorBody)
		}
		r.locator = newLocator(r.pool, conf.StripPrefix)
	}
	return r, nil
}

// usePolicies gives a route the filters of its policies.
func (s *snapshot) usePolicies(r *compiledRoute, conf *config.Route, env filter.Env) (err error) {
	policies := make([]*config.Policy, len(conf.Use))
	for i, name := range conf.Use {
		if policies[i] = s.conf.Policy[name]; policies[i] == nil {
			return fmt.Errorf("policy %q is not defined", name)
		}
	}
	env.Route = conf.Name
	r.filters, err = filter.New(policies, env)
	r.Heavy = r.filters.Heavy
	return err
}

// followPool copies what the pool's configuration says about the way to its servers.
func (r *compiledRoute) followPool() {
	conf := r.pool.Config
	r.Timeout.Connect = conf.Timeout.Connect
	r.Timeout.Send = conf.Timeout.Send
	r.Timeout.Read = conf.Timeout.Read
	r.Timeout.Tunnel = conf.Timeout.Tunnel
	r.Timeout.Idle = conf.Timeout.Idle
	r.Timeout.PerTry = conf.Retry.PerTry
	r.Sized = conf.Framing == "length"
	r.Proxied = conf.Proxied
	r.buffers = r.Buffer > 0
	// Loops speak to servers in clear, and HTTP/1.1.
	r.Heavy = r.Heavy || r.pool.Secure() != nil || r.pool.HTTP2()
	r.Heavy = r.Heavy || r.buffers || r.Sized // what reads a body to hand waits for it
	r.Heavy = r.Heavy || r.Proxied != 0       // loops share all connections to servers
	r.attempts = min(max(conf.Retry.Attempts, 1), maxAttempts)
	r.host = newHostRule(conf)
}

// countersFor returns the counters of a route, adopted by label from the old snapshot.
// Routes with the same label share them.
func (s *snapshot) countersFor(r *compiledRoute, old *snapshot, listeners int) *routeCounters {
	label := r.Name
	if len(s.conf.Route) > maxRouteLabels && r.Pool != "" {
		label = r.Pool
	} else if len(s.conf.Route) > maxRouteLabels {
		label = "other"
	}
	c := s.counters[label]
	if c == nil && old != nil {
		c = old.counters[label]
	}
	if c == nil {
		c = &routeCounters{label: label}
	}
	c.grow(listeners)
	s.counters[label] = c
	return c
}

// limitsOf are the limits of every listener.
func limitsOf(c *config.Config) dataplane.Limits {
	return dataplane.Limits{
		HeaderBytes:   int(c.Limits.HeaderBytes),
		URIBytes:      int(c.Limits.URIBytes),
		Fields:        c.Limits.Fields,
		Requests:      c.Limits.Requests,
		HeaderTime:    c.Limits.HeaderTime,
		HandshakeTime: c.Limits.HandshakeTime,
		Idle:          c.Limits.Idle,
		MinRate:       int(c.Limits.MinRate),
		RateWindow:    rateWindow,
	}
}
