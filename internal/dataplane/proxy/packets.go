package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/engine"
)

// A Berth is one of the sockets at an UDP address. Several processes of a node may have one
// each: the one that serves, and those before it whose connections have not ended. The kernel
// numbers them as they were bound, and moves the last one up when another is closed. So a
// process holds those of all before it as well, and takes one for its own whose process has
// ended, rather than add another.
type Berth struct {
	Tag    [2]byte  // in the ids of its connections
	PID    int      // of the process
	Socket *os.File // a copy; whoever has the Berth closes it

	over <-chan struct{} // closed when a listener of this process has left it; nil: of another, or it has not
}

// copies returns berths with sockets of their own.
func copies(of []Berth) (all []Berth, err error) {
	for _, b := range of {
		raw, err := b.Socket.SyscallConn()
		if err == nil {
			var fault error
			err = raw.Control(func(fd uintptr) {
				var copied int
				if copied, fault = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); fault == nil {
					b.Socket = os.NewFile(uintptr(copied), "udp")
				}
			})
			err = errors.Join(err, os.NewSyscallError("fcntl", fault))
		}
		if err != nil {
			closeBerths(all)
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// A packetDoor is the UDP socket beside a listener with http3. It outlives reloads: a
// connection of QUIC is known by its socket alone.
type packetDoor struct {
	endpoint *engine.Endpoint
	listener dataplane.Listener
	berths   []Berth // by number
	own      int     // which is the endpoint's
}

// quicEngine is what an engine has that speaks HTTP/3.
type quicEngine interface {
	Endpoint(socket net.PacketConn, k engine.EndpointKeys, l *dataplane.Listener, h dataplane.Handler) (*engine.Endpoint, error)
}

// openPackets opens the UDP sockets that the doors want and that are not there. On error none
// that it opened stays open.
func (p *Plane) openPackets(c *config.Config, doors []*door) error {
	var fresh []string
	for _, d := range doors {
		if !d.listener.HTTP3 || p.packets[d.address] != nil {
			continue
		}
		e, err := p.openPacket(c, d)
		if err != nil {
			for _, address := range fresh {
				p.part(address, p.packets[address])
				delete(p.packets, address)
			}
			return fmt.Errorf("open listener %q on %s for HTTP/3 (UDP): %w", d.listener.Name, d.address, reason(err))
		}
		p.packets[d.address] = e
		fresh = append(fresh, d.address)
	}
	return nil
}

func (p *Plane) openPacket(c *config.Config, d *door) (_ *packetDoor, err error) {
	speaks, ok := p.opt.Engine.(quicEngine)
	if !ok {
		return nil, errors.New("the engine does not speak it")
	}
	l := packetListener(d)
	e := &packetDoor{listener: l}
	if former := p.parting[d.address]; former != nil {
		e.berths, err = copies(former.berths)
	} else if p.opt.Berths != nil {
		e.berths = p.opt.Berths(d.address)
	}
	defer func() {
		if err != nil {
			closeBerths(e.berths)
		}
	}()
	if err != nil {
		return nil, err
	}
	e.own = slices.IndexFunc(e.berths, p.vacant)
	var socket net.PacketConn
	if e.own >= 0 {
		socket, err = net.FilePacketConn(e.berths[e.own].Socket)
	} else {
		e.own = len(e.berths)
		socket, err = listenPacket(d.socket.Addr())
	}
	if err != nil {
		return nil, err
	}
	if e.endpoint, err = speaks.Endpoint(socket, p.endpointKeys(c), &l, p); err != nil {
		return nil, err
	}
	mine := Berth{Tag: e.endpoint.Tag(), PID: os.Getpid()}
	if e.own < len(e.berths) {
		mine.Socket = e.berths[e.own].Socket
		e.berths[e.own] = mine
	} else if mine.Socket, err = e.endpoint.File(); err == nil {
		e.berths = append(e.berths, mine)
	}
	if err == nil && !p.opt.Shut {
		err = p.steer(e)
	}
	if err != nil {
		e.endpoint.Close()
		return nil, err
	}
	return e, nil
}

// vacant reports whether nobody reads from a berth any more.
func (p *Plane) vacant(b Berth) bool {
	select {
	case <-b.over:
		return true
	default:
		return p.opt.Gone != nil && p.opt.Gone(b.PID)
	}
}

// steer has the kernel give each process what is said on its connections, and this one the rest.
func (p *Plane) steer(e *packetDoor) error {
	var others []engine.Steered
	for i, b := range e.berths {
		if i != e.own && !p.vacant(b) {
			others = append(others, engine.Steered{Tag: b.Tag, Number: i})
		}
	}
	return e.endpoint.Steer(e.own, others)
}

// part lets the connections of an address end. It is free when they have.
func (p *Plane) part(address string, e *packetDoor) {
	e.endpoint.Close()
	e.berths[e.own].over = e.endpoint.Over()
	p.parting[address] = e
	go func() { // ends with the last connection
		<-e.endpoint.Over()
		p.mu.Lock()
		defer p.mu.Unlock()
		closeBerths(e.berths)
		if p.parting[address] == e {
			delete(p.parting, address)
		}
	}()
}

func closeBerths(all []Berth) {
	for _, b := range all {
		b.Socket.Close()
	}
}

func packetListener(d *door) dataplane.Listener {
	l := *d.listener
	l.Datagrams = true
	return l
}

// usePackets gives the sockets that stay what is said of their listeners now, and closes
// those that nobody wants.
func (p *Plane) usePackets(doors []*door) {
	wanted := map[string]*door{}
	for _, d := range doors {
		if d.listener.HTTP3 {
			wanted[d.address] = d
		}
	}
	for address, e := range p.packets {
		d := wanted[address]
		if d == nil {
			p.part(address, e)
			delete(p.packets, address)
			continue
		}
		if l := packetListener(d); l != e.listener {
			e.listener = l
			e.endpoint.Use(&l, p)
		}
	}
}

// steerAll is for what may have changed of who is at the addresses.
func (p *Plane) steerAll() {
	for address, e := range p.packets {
		if err := p.steer(e); err != nil {
			p.opt.Logger.Warn("connections of HTTP/3 that another process has may be lost", "address", address, "error", err)
		}
	}
}

// Berths returns who is at each UDP address, by the address in the configuration, for the
// process that takes this one's place. The caller closes the sockets. From here on this process
// says no more whose a datagram is, unless Resume is called.
func (p *Plane) Berths() (map[string][]Berth, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given = true
	all := map[string][]Berth{}
	for address, e := range p.packets {
		berths, err := copies(e.berths)
		if err != nil {
			for _, given := range all {
				closeBerths(given)
			}
			return nil, fmt.Errorf("listener on %s (UDP): %w", address, err)
		}
		all[address] = berths
	}
	return all, nil
}

// Resume is for when the process that was to take this one's place has ended.
func (p *Plane) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given = false
	p.steerAll()
}

// Parted is for when a process before this one has ended: what still comes for its
// connections is answered here, by what tells clients that they are lost.
func (p *Plane) Parted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.given && !p.opt.Shut {
		p.steerAll()
	}
}

// listenPacket opens an UDP socket at the address of a TCP one, held here or not. Another
// process of ours may have one there: the one whose place this one takes.
func listenPacket(at net.Addr) (net.PacketConn, error) {
	a, ok := at.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("no address for UDP: %v", at)
	}
	network, address := "udp", a.String()
	switch ip, _ := netip.AddrFromSlice(a.IP); {
	case ip.Unmap().Is4():
		network = "udp4"
	case ip.IsUnspecified():
		address = fmt.Sprintf(":%d", a.Port)
	default:
		network = "udp6"
	}
	var fault error
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return errors.Join(raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			fault = engine.MayShare(fd)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetBuffer)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, packetBuffer)
		}), fault)
	}}
	return c.ListenPacket(context.Background(), network, address)
}

// packetBuffer is how many bytes of datagrams may wait, all connections together.
const packetBuffer = 7 << 20
