package engine

import (
	"time"

	"proxyd/internal/dataplane"
)

// sweep looks, now and then, after what nobody waits for: clients that have gone while
// their exchange waits for a server, and kept connections that are too old. It ends when
// the engine's connections are closed by force or all closed.
func (g *Goroutine) sweep() {
	tick := time.NewTicker(g.conf.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t := now()
			g.spare.look()
			g.sweepClients(t)
			g.endpoints.each(func(h *h3conn) { h.sweep(t) })
			g.sweepServers(t, false)
		case <-g.force.Done():
			g.workers.stop()
			g.sweepServers(0, true)
			return
		}
	}
}

// sweepClients takes exchanges away from servers that are lost, so that they can go
// elsewhere, and ends those of clients that have gone. A client that has closed its half
// of the connection may still read; it is served if the server is heard of within a
// sweep or two, and counts as gone when it has not been.
func (g *Goroutine) sweepClients(t moment) {
	g.conns.each(func(c *clientConn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.h2 != nil {
			c.h2.sweep(t)
			return
		}
		if !c.exchange.sweep(t) {
			return
		}
		gone := false
		if err := c.raw.Control(func(fd uintptr) { gone = hungUp(fd) }); err != nil || !gone {
			return
		}
		c.cut(dataplane.ErrClientGone)
	})
}

// sweepServers closes kept connections that are too old at t, or all.
func (g *Goroutine) sweepServers(t moment, all bool) {
	g.mu.Lock()
	servers := make([]*kept, 0, len(g.servers))
	for k := range g.servers {
		servers = append(servers, k)
	}
	g.mu.Unlock()
	for _, k := range servers {
		k.sweep(t, all)
		g.mu.Lock()
		if k.over() {
			delete(g.servers, k)
			k.listed.Store(false)
		}
		g.mu.Unlock()
	}
}
