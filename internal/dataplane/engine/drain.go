package engine

import (
	"context"
	"errors"
	"time"

	"proxyd/internal/dataplane"
)

// Shutdown implements Engine. Answers say Connection: close from now on. An idle
// connection is left open for IdleGrace, since a request may be on its way; then our
// half of it is closed, and what its client sent meanwhile is read and dropped, so that
// the client sees an end and no reset.
func (g *Goroutine) Shutdown(ctx context.Context) error {
	defer g.stop()
	g.close()
	return g.drain(ctx)
}

// close closes the sockets and what is kept with servers. Nothing is kept from now on.
func (g *Goroutine) close() {
	g.mu.Lock()
	g.draining.Store(true)
	for socket := range g.sockets {
		socket.Close()
	}
	g.mu.Unlock()
	g.sweepServers(0, true)
}

// drain lets the client connections end, by force when ctx ends.
func (g *Goroutine) drain(ctx context.Context) error {
	quiet := make(chan error, 1)
	go func() { quiet <- g.endpoints.drain(ctx) }() // ends with ctx at the latest
	if err := errors.Join(g.drainConns(ctx), <-quiet); err != nil {
		return dataplane.ErrDrained
	}
	return nil
}

// drainConns is drain for connections of TCP.
func (g *Goroutine) drainConns(ctx context.Context) error {
	empty := g.conns.emptied()
	g.conns.each(func(c *clientConn) {
		if h := c.speaking(); h != nil {
			h.leave()
		}
	})
	grace := time.NewTimer(g.conf.IdleGrace)
	defer grace.Stop()
	for {
		select {
		case <-empty:
			return nil
		case <-grace.C:
			g.conns.each(func(c *clientConn) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.idle {
					c.interrupt(errDrainNow)
				}
			})
		case <-ctx.Done():
			g.stop()
			g.conns.each(func(c *clientConn) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.cutAll(dataplane.ErrDrained)
			})
			<-empty
			return dataplane.ErrDrained
		}
	}
}

// speaking returns what the connection is if it speaks HTTP/2, or nil.
func (c *clientConn) speaking() *h2conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.h2
}

// cutAll interrupts what the connection waits for. c.mu is held.
func (c *clientConn) cutAll(err error) {
	if c.h2 != nil {
		c.h2.cut(err)
	}
	c.cut(err)
}

// emptied returns a channel that is closed when there is no connection.
func (s *clients) emptied() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	if s.count.Load() == 0 {
		close(s.empty)
		s.empty = nil
	}
	return empty
}
