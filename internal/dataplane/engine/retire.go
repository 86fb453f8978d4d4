package engine

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
)

// Count returns how many client connections came in at a local address.
func (g *Goroutine) Count(local netip.Addr) int { return g.CountAll()[local] }

// CountAll returns how many client connections came in at each local address.
func (g *Goroutine) CountAll() map[netip.Addr]int {
	all := map[netip.Addr]int{}
	g.conns.each(func(c *clientConn) { all[c.local()]++ })
	g.endpoints.each(func(h *h3conn) { all[h.local()]++ })
	return all
}

// Retire lets the client connections end that came in at a local address: idle ones as by
// Shutdown, the others after their exchange, whose answer says Connection: close if it was
// not begun. By force it cuts them.
func (g *Goroutine) Retire(local netip.Addr, force bool) {
	g.conns.each(func(c *clientConn) {
		if c.local() != local {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.retired.Store(true)
		switch {
		case force:
			c.cutAll(dataplane.ErrDrained)
		case c.h2 != nil:
			c.h2.leave()
		}
	})
	g.endpoints.each(func(h *h3conn) {
		switch {
		case h.local() != local:
		case force:
			h.cut(dataplane.ErrDrained)
		default:
			h.leave()
		}
	})
	if force {
		return
	}
	// A request may be on its way on those that are idle now.
	time.AfterFunc(g.conf.IdleGrace, func() {
		g.conns.each(func(c *clientConn) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.retired.Load() && c.idle {
				c.interrupt(errDrainNow)
			}
		})
	})
}

// local returns the address that the client connected to.
func (h *h3conn) local() netip.Addr { return addrPortOf(h.quic.LocalAddr()).Addr() }

// local returns the address that the client connected to.
func (c *clientConn) local() netip.Addr {
	a, ok := c.tcp.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap()
}

// Count is that of the goroutine engine, over the loops' connections too.
func (e *Loop) Count(local netip.Addr) int { return e.CountAll()[local] }

// CountAll is that of the goroutine engine, over the loops' connections too.
func (e *Loop) CountAll() map[netip.Addr]int {
	all := e.side.CountAll()
	var mu sync.Mutex // the loops count at once
	e.each(func(_ *loop, _ *loopClient, at netip.Addr) {
		mu.Lock()
		defer mu.Unlock()
		all[at]++
	})
	return all
}

// Retire is that of the goroutine engine.
func (e *Loop) Retire(local netip.Addr, force bool) {
	e.each(func(l *loop, c *loopClient, at netip.Addr) {
		if at != local {
			return
		}
		c.retired = true
		switch {
		case force:
			l.cutClient(c)
		case c.phase == phaseIdle && c.tray == nil:
			l.rest(c)
		}
	})
	e.side.Retire(local, force)
}

// each has the loops call do for every client connection, with the address at which it came in,
// and returns when they have.
func (e *Loop) each(do func(*loop, *loopClient, netip.Addr)) {
	var all sync.WaitGroup
	for _, l := range e.loops {
		all.Go(func() {
			looked := make(chan int)
			for from := 0; from >= 0; {
				if !l.post(func() { next := l.survey(from, do); looked <- next }) {
					return // it has ended, and its connections with it
				}
				from = <-looked
			}
		})
	}
	all.Wait()
}

// lookAtOnce is how many descriptors a loop looks at before others have their turn.
const lookAtOnce = 512

// survey calls do for some connections. It returns where to go on, or -1.
func (l *loop) survey(from int, do func(*loop, *loopClient, netip.Addr)) int {
	for ; from < len(l.table); from++ {
		if w := l.table[from]; w != nil && w.client != nil {
			do(l, w.client, localOf(w.fd))
		}
		if (from+1)%lookAtOnce == 0 {
			return from + 1
		}
	}
	return -1
}

// localOf returns the address that the client of a connection connected to.
func localOf(fd int32) netip.Addr { return localPortOf(fd).Addr() }

// localPortOf returns it with its port.
func localPortOf(fd int32) netip.AddrPort {
	var sa unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	_, _, e := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return netip.AddrPort{}
	}
	return addrPort(&sa)
}
