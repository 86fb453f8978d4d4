package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"proxyd/internal/ha/datagram"
)

// readBuffer is what the kernel is asked to keep of packets that wait to be read, in bytes.
const readBuffer = 2 << 20

// sockets is the memberlist.NodeAwareTransport of a node: memberlist's own would open the
// sockets itself, and nobody else could have them.
type sockets struct {
	cluster string
	refused func() // is told of what came and is not given to memberlist
	tcp     net.Listener
	udp     *net.UDPConn
	raw     syscall.RawConn // of udp
	packets chan *memberlist.Packet
	streams chan net.Conn
	over    chan struct{}
	loops   sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*sockets)(nil)

// openSockets opens both sockets of a voter, with what c says for that.
func openSockets(c Config, refused func()) (*sockets, error) {
	s := &sockets{cluster: c.Cluster, refused: refused, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), over: make(chan struct{})}
	listenTCP, listenUDP := c.ListenTCP, c.ListenUDP
	if listenTCP == nil {
		listenTCP = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	if listenUDP == nil {
		listenUDP = func(address string) (*net.UDPConn, error) {
			a, err := net.ResolveUDPAddr("udp", address)
			if err != nil {
				return nil, err
			}
			return net.ListenUDP("udp", a)
		}
	}
	var err error
	if s.tcp, err = listenTCP(string(c.Self)); err != nil {
		return nil, err
	}
	if s.udp, err = listenUDP(string(c.Self)); err != nil {
		s.tcp.Close()
		return nil, err
	}
	if s.raw, err = s.udp.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.tcp.Close(), s.udp.Close())
	}
	_ = s.udp.SetReadBuffer(readBuffer) // as much as the kernel grants
	s.loops.Go(s.accept)
	s.loops.Go(s.read)
	return s, nil
}

// accept hands streams over until the listener is closed.
func (s *sockets) accept() {
	for {
		c, err := s.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-s.over:
				return
			case <-time.After(100 * time.Millisecond): // only time helps
			}
			continue
		}
		select {
		case s.streams <- guard(c, s.cluster, false, s.refused):
		case <-s.over:
			c.Close()
			return
		}
	}
}

// read hands packets over until the socket is closed.
func (s *sockets) read() {
	buf, n := make([]byte, 64<<10), 0
	var from datagram.Endpoint
	for {
		if err := s.raw.Read(func(fd uintptr) bool {
			n = datagram.Receive(int(fd), buf, &from)
			return n >= 0
		}); err != nil {
			return
		}
		if n == 0 {
			continue // an ICMP error of an earlier packet
		}
		if !sealedPacket(buf[:n], s.cluster) {
			s.refused()
			continue
		}
		select {
		case s.packets <- &memberlist.Packet{Buf: bytes.Clone(buf[:n]), From: net.UDPAddrFromAddrPort(from.Addr()), Timestamp: time.Now()}:
		case <-s.over:
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport, as do the methods below.
func (s *sockets) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	a := net.ParseIP(ip)
	if a == nil {
		return nil, 0, fmt.Errorf("advertise %q: it is no address", ip)
	}
	if four := a.To4(); four != nil {
		a = four
	}
	return a, port, nil
}

func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (s *sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr) // voters are known by their addresses
	if err != nil {
		return time.Time{}, err
	}
	cerr := s.raw.Control(func(fd uintptr) { err = datagram.Send(int(fd), b, datagram.EndpointOf(to)) })
	return time.Now(), errors.Join(cerr, err)
}

func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }
func (s *sockets) StreamCh() <-chan net.Conn           { return s.streams }

func (s *sockets) DialTimeout(addr string, d time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, d)
	if err != nil {
		return nil, err
	}
	return guard(c, s.cluster, true, s.refused), nil
}

func (s *sockets) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return s.DialTimeout(a.Addr, d)
}

func (s *sockets) Shutdown() error {
	close(s.over) // memberlist does this once
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	s.loops.Wait()
	return err
}

// Sockets returns the open sockets by network and address, for the process that takes this
// one's place.
func (g *Gossip) Sockets() map[string]syscall.Conn {
	if g.sockets == nil {
		return nil
	}
	out := map[string]syscall.Conn{"udp " + string(g.Self): g.sockets.udp}
	if c, ok := g.sockets.tcp.(syscall.Conn); ok {
		out["tcp "+string(g.Self)] = c
	}
	return out
}

// HandOn makes the end of Run go unannounced: another process is this member from then on.
func (g *Gossip) HandOn() { g.handed.Store(true) }
