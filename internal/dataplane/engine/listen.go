package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
)

const (
	leastPause = 5 * time.Millisecond // after an accept that failed
	mostPause  = time.Second
)

// Serve implements Engine.
func (g *Goroutine) Serve(l *dataplane.Listener, socket net.Listener, h dataplane.Handler) error {
	welcome := func(conn net.Conn) error { return g.welcome(l, h, conn) }
	if s, ok := socket.(*Socket); ok {
		// The error says that it is closed, as accept will.
		_ = s.attend(func(fd int) { takeLast(fd, welcome) })
	}
	return g.accept(l, socket, welcome)
}

// takeLast takes in who waits at a door that is about to be closed. The kernel would reset
// them, though they came in time.
func takeLast(fd int, welcome func(net.Conn) error) {
	for range lastAccepts {
		client, _, e := acceptFD(fd)
		if e != 0 {
			return
		}
		f := os.NewFile(uintptr(client), "client")
		conn, err := net.FileConn(f)
		f.Close()
		if err == nil {
			_ = welcome(conn) // a TCP connection, so nothing
		}
	}
}

// accept gives each connection to welcome, whose error ends it.
func (g *Goroutine) accept(l *dataplane.Listener, socket net.Listener, welcome func(net.Conn) error) error {
	if !g.enter(socket) {
		socket.Close()
		return nil
	}
	defer g.leave(socket)
	pause := time.Duration(0)
	for {
		conn, err := socket.Accept()
		if err == nil {
			pause = 0
			if err = welcome(conn); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if errors.Is(err, syscall.ECONNABORTED) {
			continue // the client's affair
		}
		// For the rest (no files, no memory) only time helps, and giving up what is
		// not needed now.
		if pause == 0 {
			g.sweepServers(0, true)
		}
		g.noFiles(l.Name, err)
		pause = min(max(2*pause, leastPause), mostPause)
		select {
		case <-time.After(pause):
		case <-g.force.Done():
		}
	}
}

// enter notes a socket that is served, unless the engine is shutting down.
func (g *Goroutine) enter(socket net.Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining.Load() {
		return false
	}
	g.sockets[socket] = struct{}{}
	g.swept.Do(func() { go g.sweep() }) // ends with g.force
	return true
}

func (g *Goroutine) leave(socket net.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sockets, socket)
}

// welcome admits a connection and starts its goroutine, which ends with the connection.
func (g *Goroutine) welcome(l *dataplane.Listener, h dataplane.Handler, conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return notTCP(l, conn)
	}
	if g.crowded(l, tcp) {
		return nil
	}
	client := addrOf(tcp)
	ask := h.Admit
	if l.Front != nil {
		ask = l.Front.Await
	}
	if !ask(l, client) {
		tcp.Close()
		return nil
	}
	c := &clientConn{peer: client, id: g.ids.Add(1), began: now(), inside: l.Front == nil}
	c.engine, c.handler, c.listener = g, h, l
	if err := c.open(tcp); err != nil {
		tcp.Close()
		if l.Front != nil {
			l.Front.Heard(l, client, netip.AddrPort{}, err)
		} else {
			h.Leave(l, client, dataplane.ClosedError)
		}
		return nil
	}
	c.speak()
	c.idle = true
	g.conns.add(c)
	go c.serve()
	return nil
}

// crowded turns a connection away that has one of the last descriptors.
func (g *Goroutine) crowded(l *dataplane.Listener, tcp *net.TCPConn) bool {
	raw, err := tcp.SyscallConn()
	full := false
	if err == nil {
		err = raw.Control(func(fd uintptr) { full = g.spare.fullFor(int(fd)) })
	}
	if err != nil || !full {
		return false
	}
	if l.TLS == nil {
		_ = tcp.SetWriteDeadline(time.Now()) // a new connection takes it at once
		_, _ = io.WriteString(tcp, turnedAway)
	}
	tcp.Close()
	g.noFiles(l.Name, errSpare)
	return true
}

func notTCP(l *dataplane.Listener, conn net.Conn) error {
	return fmt.Errorf("serve listener %q: a %T is no TCP connection", l.Name, conn)
}

// addrOf returns the client's address, IPv4 as such on a socket for both families.
func addrOf(tcp *net.TCPConn) netip.AddrPort {
	a, ok := tcp.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
