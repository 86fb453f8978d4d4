package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/engine"
)

// defaultListener is what there is if the configuration names none.
const defaultListener, defaultAddress = "http", ":80"

// A door is an open listener: its address in the configuration, what the engine knows
// of it, and its socket.
type door struct {
	address  string
	listener *dataplane.Listener
	socket   net.Listener
}

// Listen opens a TCP socket that can be bound to an address that this node does not
// hold (yet): the virtual addresses are bound on every node beforehand, so that a
// failover touches nothing here. The backlog is the kernel's maximum.
func Listen(network, address string) (net.Listener, error) {
	c := net.ListenConfig{
		KeepAliveConfig: net.KeepAliveConfig{Enable: false},
		KeepAlive:       -1, // the engine has deadlines of its own; saves calls at each accept
		Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				// SO_REUSEADDR is Go's default. One of these two fails for the other family.
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			})
		},
	}
	// Go binds "0.0.0.0" to both families; here only ":80" is both.
	if host, _, err := net.SplitHostPort(address); err == nil && network == "tcp" {
		switch a, err := netip.ParseAddr(host); {
		case err != nil:
		case a.Is4():
			network = "tcp4"
		default:
			network = "tcp6"
		}
	}
	l, err := c.Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	return engine.NewSocket(l.(*net.TCPListener))
}

// wanted are the doors that a configuration asks for, without sockets.
func wanted(c *config.Config, listeners *listenerSet, room *dataplane.Room, secure dataplane.TLS, before dataplane.Front) []*door {
	var doors []*door
	add := func(name, address string) {
		l := &dataplane.Listener{Name: name, Address: address, Limits: limitsOf(c), Room: room, Index: listeners.index(name)}
		switch conf := c.Listener[name]; {
		case conf == nil:
		case conf.TLS:
			l.TLS, l.HTTP2 = secure, conf.HTTP2
			l.HTTP3 = conf.HTTP3
		default:
			l.HTTP2 = conf.H2C
		}
		if conf := c.Listener[name]; conf != nil {
			l.Limits.Underscores = underscoresOf(conf)
			l.ProxyStatus, l.ServerTiming = conf.ProxyStatus, conf.ServerTiming
			if conf.Proxied {
				l.Front = before
			}
		}
		doors = append(doors, &door{address: address, listener: l})
	}
	if len(c.Listener) == 0 {
		add(defaultListener, defaultAddress)
	}
	for name, l := range c.Listener {
		for _, a := range l.Address {
			add(name, a)
		}
	}
	return doors
}

// open gives each door its socket: the one already open for that address, or a new
// one. It returns the doors of the new snapshot and those of them that are not served
// yet. On error nothing that it opened stays open.
func (p *Plane) open(c *config.Config, doors []*door) (all, fresh []*door, err error) {
	moved := p.moveAside(doors)
	for _, d := range doors {
		old := p.doors[d.address]
		switch {
		case old != nil && *old.listener == withAddress(*d.listener, old.listener.Address):
			all = append(all, old)
			continue
		case old != nil:
			// The same kernel socket under another name or with other limits.
			d.socket, err = share(old.socket)
		default:
			d.socket, err = p.opt.Listen("tcp", d.address)
		}
		if err != nil {
			for _, f := range fresh {
				f.socket.Close()
			}
			p.moveBack(moved)
			err = fmt.Errorf("open listener %q on %s: %w", d.listener.Name, d.address, reason(err))
			if errors.Is(err, syscall.EACCES) {
				err = fmt.Errorf("%w: %w", err, ErrLowPort)
			}
			return nil, nil, err
		}
		d.listener.Address = d.socket.Addr().String()
		all, fresh = append(all, d), append(fresh, d)
	}
	if err := p.openPackets(c, all); err != nil {
		for _, f := range fresh {
			f.socket.Close()
		}
		p.moveBack(moved)
		return nil, nil, err
	}
	return all, fresh, nil
}

// moveAside closes open doors that no one wants any more and that keep a wanted one
// from being opened: ":80" stands in the way of "10.0.0.9:80", and the reverse.
func (p *Plane) moveAside(doors []*door) (moved []*door) {
	keep := make(map[string]bool)
	ports := make(map[string]bool) // of doors to open
	for _, d := range doors {
		keep[d.address] = true
		if _, port, err := net.SplitHostPort(d.address); err == nil && p.doors[d.address] == nil && port != "0" {
			ports[port] = true
		}
	}
	for address, d := range p.doors {
		if _, port, err := net.SplitHostPort(address); err == nil && !keep[address] && ports[port] {
			delete(p.doors, address)
			d.socket.Close()
			moved = append(moved, d)
		}
	}
	return moved
}

// moveBack opens again what moveAside closed.
func (p *Plane) moveBack(moved []*door) {
	for _, d := range moved {
		socket, err := p.opt.Listen("tcp", d.address)
		if err != nil {
			p.lost(d, err)
			continue
		}
		again := &door{address: d.address, listener: d.listener, socket: socket}
		p.doors[d.address] = again
		p.attend(again)
	}
}

// lost notes a listener that should be open and is not.
func (p *Plane) lost(d *door, err error) {
	text := fmt.Sprintf("listener %q on %s: %v", d.listener.Name, d.address, err)
	p.broken.Store(&text)
	p.opt.Logger.Error("listener ended", "listener", d.listener.Name, "address", d.address, "err", err)
}

func withAddress(l dataplane.Listener, address string) dataplane.Listener {
	l.Address = address
	return l
}

// share returns a second handle of a listening socket. Closing one leaves the other,
// with all connections that wait to be accepted.
func share(l net.Listener) (net.Listener, error) {
	if s, ok := l.(*engine.Socket); ok {
		return s.Share()
	}
	filer, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("a %T cannot be shared", l)
	}
	f, err := filer.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// ErrLowPort is within the error of a listener that this process may not open.
var ErrLowPort = errors.New("missing CAP_NET_BIND_SERVICE (to listen on ports below 1024)")

// reason takes off what net says besides the cause: we name the address ourselves.
func reason(err error) error {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok || inner.Unwrap() == nil {
			return err
		}
		err = inner.Unwrap()
	}
}
