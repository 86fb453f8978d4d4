package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/dataplane/upstream"
)

// maxWeight is the greatest weight that the configuration may give, too.
const maxWeight = 1000

// SteerServer implements control.Operator.
func (n *node) SteerServer(ctx context.Context, w control.ServerWish) (*control.Steered, error) {
	name, r, err := n.steerServer(w)
	if err != nil || w.WaitMS == 0 {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.WaitMS)*time.Millisecond)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for idle := 0; ; {
		if r.Active, err = n.plane.Active(name); err != nil {
			return nil, control.Refuse(err.Error())
		}
		// An exchange that was picked just before may be counted just after.
		if idle++; r.Active > 0 {
			idle = 0
		}
		if idle == 2 {
			return r, nil
		}
		select {
		case <-ctx.Done():
			return nil, control.TimedOut(fmt.Sprintf("%s: %d exchanges are still in progress on it", w.Server, r.Active))
		case <-tick.C:
		}
	}
}

func (n *node) steerServer(w control.ServerWish) (proxy.ServerName, *control.Steered, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := findServer(n.config, w.Server)
	if !ok {
		return name, nil, control.Refuse(fmt.Sprintf("%s: no pool has such a server; `hactl pools` lists them, and it is given as POOL/SERVER", w.Server))
	}
	o := n.overrides.wanted(n.config)[serverKey(name)]
	before := o
	o.Pool, o.Server = name.Pool, name.Server
	if w.Mode != nil {
		mode, ok := upstream.ParseMode(*w.Mode)
		if !ok {
			return name, nil, control.Invalid(fmt.Sprintf("mode %q: want serve, drain or maint", *w.Mode))
		}
		if o.Mode = mode.String(); mode == upstream.Serve {
			o.Mode = ""
		}
	}
	if w.Weight != nil {
		if *w.Weight < 0 || *w.Weight > maxWeight {
			return name, nil, control.Refuse(fmt.Sprintf("weight %d: want 1 to %d", *w.Weight, maxWeight))
		}
		o.Weight = *w.Weight
	}
	r := &control.Steered{Override: o, Warnings: []string{}}
	if o.Mode != before.Mode || o.Weight != before.Weight {
		var err error
		if r, err = n.override(serverKey(name), o); err != nil {
			return name, nil, err
		}
		n.log.Info("server steered", "pool", name.Pool, "server", name.Server, "mode", orServes(o.Mode), "weight", o.Weight)
	}
	if o.Mode != "" && !n.othersServe(name) {
		r.Warnings = append(r.Warnings, fmt.Sprintf("no other server of pool %q is up", name.Pool))
	}
	r.Active, _ = n.plane.Active(name) // it is there
	return name, r, nil
}

// SteerRoute implements control.Operator.
func (n *node) SteerRoute(_ context.Context, w control.RouteWish) (*control.Steered, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := false
	for _, r := range n.config.Route {
		known = known || r.Name == w.Route
	}
	if !known {
		return nil, control.Refuse(fmt.Sprintf("%s: there is no such route; its name is that of `name`, or its host and path", w.Route))
	}
	o := control.Override{Route: w.Route}
	if w.Closed {
		o.Status, o.RetryAfter, o.Allow = w.Status, w.RetryAfter, w.Allow
		if o.Status == 0 {
			o.Status = 503
		}
		if o.Status < 200 || o.Status > 599 || o.RetryAfter < 0 {
			return nil, control.Refuse(fmt.Sprintf("status %d, retry after %d s: want a status of 200 to 599 and no negative time", o.Status, o.RetryAfter))
		}
	}
	r, err := n.override(routeKey(w.Route), o)
	if err == nil {
		n.log.Info("route steered", "route", w.Route, "maintenance", w.Closed, "status", o.Status)
	}
	return r, err
}

// override puts o in force here, tells the other nodes and keeps it. n.mu is held.
func (n *node) override(key string, o control.Override) (*control.Steered, error) {
	o.Node, o.Since = n.config.Node.Name, time.Now().UTC().Truncate(time.Second)
	wanted := n.overrides.wanted(n.config)
	if wanted[key] = o; o.Mode == "" && o.Weight == 0 && o.Status == 0 {
		delete(wanted, key)
	}
	if err := n.plane.Steer(steering(wanted)); err != nil {
		return nil, control.Refuse(err.Error())
	}
	if err := n.overrides.put(key, o); err != nil {
		return nil, err
	}
	n.overrides.drop(wanted)
	return &control.Steered{Override: o, Warnings: append([]string{}, n.keep()...)}, nil
}

// restrain puts in force what is wanted of the servers and routes of n.config, and forgets
// what was wanted of those that have left it. n.mu is held.
func (n *node) restrain() {
	wanted := n.overrides.wanted(n.config)
	gone := n.overrides.drop(wanted)
	for _, key := range gone {
		n.log.Warn("override forgotten: what it is about has left the configuration", "override", key)
	}
	if err := n.plane.Steer(steering(wanted)); err != nil {
		n.log.Warn("overrides", "error", err)
	}
	if len(gone) > 0 {
		n.keep()
	}
}

// keep writes the overrides to the disk and says why not. n.mu is held.
func (n *node) keep() (warnings []string) {
	if err := n.overrides.save(); err != nil {
		n.log.Error("state directory", "error", err)
		warnings = append(warnings, err.Error())
	}
	return warnings
}

// followOverrides puts in force what operators ask of other nodes, until ctx ends.
func (n *node) followOverrides(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.shared.heard:
		}
		n.mu.Lock()
		n.restrain()
		n.keep()
		n.mu.Unlock()
		n.stand(true)
	}
}

// findServer finds what an operator calls POOL/SERVER.
func findServer(c *config.Config, words string) (proxy.ServerName, bool) {
	for name, pool := range c.Pool {
		rest, ok := strings.CutPrefix(words, name+"/")
		if !ok {
			continue
		}
		for _, s := range pool.Server {
			if s.Addr == rest {
				return proxy.ServerName{Pool: name, Server: rest}, true
			}
		}
	}
	return proxy.ServerName{}, false
}

// othersServe reports whether another server of the pool is up.
func (n *node) othersServe(name proxy.ServerName) bool {
	for _, p := range n.plane.Pools() {
		for _, s := range p.Servers {
			if p.Name == name.Pool && s.Name != name.Server && s.State == "up" {
				return true
			}
		}
	}
	return false
}

func orServes(mode string) string {
	if mode == "" {
		return "serve"
	}
	return mode
}
