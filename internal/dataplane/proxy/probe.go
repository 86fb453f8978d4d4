package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/proxyheader"
)

// Probe asks each listener of this node for an answer and returns nil if one comes from
// all of them: the data plane's part of the node's fitness. It knows that a listener on
// an address which is held elsewhere cannot be asked. It returns when ctx ends at the
// latest.
func (p *Plane) Probe(ctx context.Context) error {
	if ok, why := p.Ready(); !ok {
		return errors.New(why)
	}
	p.mu.Lock()
	doors := make([]*door, 0, len(p.doors))
	for _, d := range p.doors {
		doors = append(doors, d)
	}
	p.mu.Unlock()
	for _, d := range doors {
		if err := p.ask(ctx, d); err != nil && p.has(d) {
			return fmt.Errorf("listener %q on %s: %w", d.listener.Name, d.address, err)
		}
	}
	return nil
}

// has reports whether a door is one of the plane's now. One that a reload has closed
// meanwhile need not answer.
func (p *Plane) has(d *door) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doors[d.address] == d
}

// ask sends a request that is answered here, whatever the routes are.
func (p *Plane) ask(ctx context.Context, d *door) error {
	bound, ok := d.socket.Addr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	to := bound.AddrPort()
	dialer := net.Dialer{KeepAlive: -1} // it lasts for one question
	switch {
	case !to.Addr().IsUnspecified():
		// From the address itself: that works only where it is held, and stays here.
		dialer.LocalAddr = &net.TCPAddr{IP: bound.IP, Zone: bound.Zone}
	case to.Addr().Is4() || strings.HasPrefix(d.address, ":"): // ":80" is both families
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	default:
		to = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
	}
	p.probing.Add(1)
	defer p.probing.Add(-1)
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return reason(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if from, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		at := unmapped(from.AddrPort())
		p.probes.Store(at, true)
		defer p.probes.Delete(at)
	}
	if d.listener.Front != nil {
		own, err := proxyheader.Append(nil, 1, netip.AddrPort{}, netip.AddrPort{})
		if err == nil {
			_, err = conn.Write(own)
		}
		if err != nil {
			return reason(err)
		}
	}
	if d.listener.TLS != nil {
		// Whose certificate it is does not matter: it is this node's, and it may have expired.
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: p.sessions})
	}
	if _, err := io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"); err != nil {
		return reason(err)
	}
	var head [12]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return reason(err)
	}
	if !bytes.Equal(head[:], []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answered %q", head[:])
	}
	return nil
}

// isProbe reports whether x is this node asking itself: neither logged nor counted.
func (p *Plane) isProbe(x *dataplane.Exchange) bool {
	if p.probing.Load() == 0 {
		return false
	}
	_, found := p.probes.Load(unmapped(x.Client))
	return found
}

// mayBeProbe reports whether a connection is likely this node asking itself. It is let
// in beyond the limits: a full node is not an unfit one.
func (p *Plane) mayBeProbe(l *dataplane.Listener, client netip.Addr) bool {
	if p.probing.Load() == 0 {
		return false
	}
	at, err := netip.ParseAddrPort(l.Address)
	return client.IsLoopback() || err == nil && at.Addr() == client
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
