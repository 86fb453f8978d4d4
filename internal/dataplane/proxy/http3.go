package proxy

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
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

// A packetDoor is the UDP socket beside a listener with http3. It outlives reloads: a
// connection of QUIC is known by its socket alone.
type packetDoor struct {
	endpoint *engine.Endpoint
	listener dataplane.Listener
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
				p.packets[address].endpoint.Close()
				delete(p.packets, address)
			}
			return fmt.Errorf("open listener %q on %s for HTTP/3 (UDP): %w", d.listener.Name, d.address, reason(err))
		}
		p.packets[d.address] = e
		fresh = append(fresh, d.address)
	}
	return nil
}

func (p *Plane) openPacket(c *config.Config, d *door) (*packetDoor, error) {
	speaks, ok := p.opt.Engine.(quicEngine)
	if !ok {
		return nil, errors.New("the engine does not speak it")
	}
	socket, err := listenPacket(d.socket.Addr())
	if err != nil {
		return nil, err
	}
	l := packetListener(d)
	e, err := speaks.Endpoint(socket, p.endpointKeys(c), &l, p)
	if err != nil {
		return nil, err
	}
	return &packetDoor{e, l}, nil
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
			e.endpoint.Close()
			delete(p.packets, address)
			continue
		}
		if l := packetListener(d); l != e.listener {
			e.listener = l
			e.endpoint.Use(&l, p)
		}
	}
}

// endpointKeys are derived from the cluster's secret, as those of session tickets: any node
// can tell a client that its connection is lost, and believes the address that another has
// seen. A node alone derives them from what it made up at its start.
func (p *Plane) endpointKeys(c *config.Config) engine.EndpointKeys {
	seed := p.tls.tickets.root(c)
	var k engine.EndpointKeys
	for _, of := range []struct {
		key  []byte
		what string
	}{{k.Reset[:], "proxyd QUIC stateless reset 1"}, {k.Token[:], "proxyd QUIC address tokens 1"}} {
		b, err := hkdf.Key(sha256.New, seed, nil, of.what, len(of.key))
		if err != nil {
			panic("proxy: a key of 32 bytes cannot be derived: " + err.Error())
		}
		copy(of.key, b)
	}
	k.Mark = ConnectionMark(c)
	return k
}

// ConnectionMark is how the ids begin that this node gives to connections of HTTP/3, and by
// which the others of its cluster know its datagrams. It follows from names that do not change
// while a node runs.
func ConnectionMark(c *config.Config) [6]byte {
	cluster, node := sha256.Sum256([]byte("proxyd cluster "+c.Cluster.Name)), sha256.Sum256([]byte(c.Node.Name))
	return engine.IDMark([2]byte(cluster[:]), [3]byte(node[:]))
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

var (
	nameAltSvc    = []byte("Alt-Svc")
	nameEarlyData = []byte("Early-Data")
	valueOne      = []byte("1")
)

// offer tells a client of TCP that the same is to be had by HTTP/3 (RFC 7838). What the server
// says of other places is not for this one.
func offer(x *dataplane.Exchange) {
	l := x.Listener
	if !l.HTTP3 || l.Datagrams || x.Response.Status < 200 {
		return
	}
	h := &x.Response.Header
	kept := (*h)[:0]
	for _, f := range *h {
		if len(f.Name) != len(nameAltSvc) || !bytes.EqualFold(f.Name, nameAltSvc) {
			kept = append(kept, f)
		}
	}
	*h = kept
	port := listenerPort(x)
	h.Add(dataplane.Other, nameAltSvc, x.Keep([]byte(`h3=":`), port, []byte(`"; ma=86400`)))
}

// replayable judges a request that came before the end of the handshake, which anyone may have
// recorded and sent again (RFC 8470, D8): it reports whether it can do no harm.
func replayable(x *dataplane.Exchange) bool {
	switch x.Request.Method {
	case dataplane.GET, dataplane.HEAD, dataplane.OPTIONS:
		return x.Request.Length == 0 && !x.Request.WebSocket
	}
	return false
}
