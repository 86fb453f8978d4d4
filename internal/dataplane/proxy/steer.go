package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"time"

	"github.com/gaissmai/bart"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

// A Steering is what operators want at run time, over what the configuration says. It
// stays over reloads, and must not be changed once a Plane has it. What it says of
// servers and routes that the configuration does not have means nothing.
type Steering struct {
	Servers map[ServerName]ServerOverride
	Routes  map[string]Maintenance
}

// A ServerName is a server's place in the configuration.
type ServerName struct{ Pool, Server string }

// A ServerOverride is what is wanted of one server.
type ServerOverride struct {
	Mode   upstream.Mode
	Weight int // 0: that of the configuration
}

// A Maintenance closes a route: it answers by itself.
type Maintenance struct {
	Status     int            // 200 to 599
	RetryAfter time.Duration  // what clients are told to wait; 0: they are not told
	Allow      []netip.Prefix // clients that are let through all the same
}

// Steer takes o into use. On error all is as before.
func (p *Plane) Steer(o Steering) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.steering
	p.steering = o
	s := p.current.Load()
	if s == nil {
		return nil
	}
	if maps.Equal(s.weights(before), s.weights(o)) {
		s.steer(o)
		return nil
	}
	// A weight is part of a pool's make.
	if err := p.apply(s.conf); err != nil {
		p.steering = before
		return err
	}
	return nil
}

// Active returns how many exchanges are in progress on a server.
func (p *Plane) Active(name ServerName) (int64, error) {
	if s := p.current.Load(); s != nil {
		if server := s.server(name); server != nil {
			return server.Active.Load(), nil
		}
	}
	return 0, fmt.Errorf("pool %q has no server %q", name.Pool, name.Server)
}

// server returns the server of a name, or nil.
func (s *snapshot) server(name ServerName) *upstream.Server {
	if pool := s.pools[name.Pool]; pool != nil {
		for _, server := range pool.Servers() {
			if server.Name == name.Server {
				return server
			}
		}
	}
	return nil
}

// weights are those of servers of s that o overrides.
func (s *snapshot) weights(o Steering) map[ServerName]int {
	w := map[ServerName]int{}
	for name, wanted := range o.Servers {
		if wanted.Weight > 0 && s.server(name) != nil {
			w[name] = wanted.Weight
		}
	}
	return w
}

// weighted returns conf with the weights that o overrides.
func (o Steering) weighted(conf *config.Pool) *config.Pool {
	var c *config.Pool
	for i, s := range conf.Server {
		w := o.Servers[ServerName{conf.Name, s.Addr}].Weight
		if w == 0 || w == s.Weight {
			continue
		}
		if c == nil {
			copied := *conf
			copied.Server = append([]config.Server(nil), conf.Server...)
			c = &copied
		}
		c.Server[i].Weight = w
	}
	if c == nil {
		return conf
	}
	return c
}

// steer gives the servers and routes of s what o says of them.
func (s *snapshot) steer(o Steering) {
	for name, pool := range s.pools {
		for _, server := range pool.Servers() {
			server.Steer(o.Servers[ServerName{name, server.Name}].Mode)
		}
	}
	for _, r := range s.routes[:len(s.routes)-s.builtin] {
		if m, ok := o.Routes[r.Name]; ok {
			r.closed.Store(newClosure(m))
		} else {
			r.closed.Store(nil)
		}
	}
}

var nameRetryAfter = []byte("Retry-After")

// A closure is a Maintenance made ready.
type closure struct {
	answer *answer
	retry  []byte
	allow  *bart.Lite
}

func newClosure(m Maintenance) *closure {
	c := &closure{answer: newAnswer(m.Status, "maintenance")}
	if m.RetryAfter > 0 {
		c.retry = strconv.AppendInt(nil, int64(max(m.RetryAfter.Round(time.Second), time.Second)/time.Second), 10)
	}
	if len(m.Allow) > 0 {
		c.allow = new(bart.Lite)
		for _, prefix := range m.Allow {
			c.allow.Insert(prefix)
		}
	}
	return c
}

// lets reports whether a client is let through.
func (c *closure) lets(client netip.Addr) bool { return c.allow != nil && c.allow.Contains(client) }

func (c *closure) give(x *dataplane.Exchange) dataplane.Verdict {
	v := c.answer.give(x)
	if c.retry != nil {
		x.Response.Header.Add(dataplane.Other, nameRetryAfter, c.retry)
	}
	return v
}
