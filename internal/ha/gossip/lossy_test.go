package gossip

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A lan carries packets and streams between the transports made with it. It loses a
// share of the packets, and everything between two sides of a cut. memberlist's own
// mock blocks for ever when a node stops reading; here a full queue loses packets, as a
// socket does.
type lan struct {
	mu   sync.Mutex
	ends map[string]*ether
	loss float64
	cut  bool // nobody reaches anybody
	open map[net.Conn]bool
	rand *rand.Rand
}

func newLAN() *lan {
	return &lan{ends: map[string]*ether{}, open: map[net.Conn]bool{}, rand: rand.New(rand.NewPCG(1, 1))}
}

// setCut cuts or mends the network. Streams that are open when it is cut end.
func (l *lan) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for c := range l.open {
		c.Close()
	}
	clear(l.open)
}

// ether is one node's memberlist.Transport.
type ether struct {
	lan     *lan
	addr    *net.UDPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (l *lan) transport(addr string) *ether {
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		panic(err)
	}
	w := &ether{l, a, make(chan *memberlist.Packet, 64), make(chan net.Conn, 8)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[addr] = w
	return w
}

func (w *ether) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return w.addr.IP, w.addr.Port, nil
}
func (w *ether) PacketCh() <-chan *memberlist.Packet { return w.packets }
func (w *ether) StreamCh() <-chan net.Conn           { return w.streams }

func (w *ether) Shutdown() error {
	w.lan.mu.Lock()
	defer w.lan.mu.Unlock()
	delete(w.lan.ends, w.addr.String())
	return nil
}

func (w *ether) WriteTo(b []byte, addr string) (time.Time, error) {
	w.lan.mu.Lock()
	defer w.lan.mu.Unlock()
	now := time.Now()
	to := w.lan.ends[addr]
	if to == nil || w.lan.cut || w.lan.rand.Float64() < w.lan.loss {
		return now, nil
	}
	select {
	case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: w.addr, Timestamp: now}:
	default:
	}
	return now, nil
}

func (w *ether) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	w.lan.mu.Lock()
	to, cut := w.lan.ends[addr], w.lan.cut
	w.lan.mu.Unlock()
	if to == nil {
		return nil, errors.New("connection refused")
	}
	if cut {
		time.Sleep(timeout)
		return nil, errors.New("i/o timeout")
	}
	// A pipe writes only when the other side reads, and memberlist writes its whole
	// state before it reads: so each direction has a goroutine that buffers.
	near, nearIn := net.Pipe()
	far, farIn := net.Pipe()
	go pump(farIn, nearIn)
	go pump(nearIn, farIn)
	w.lan.mu.Lock()
	w.lan.open[near], w.lan.open[far] = true, true
	w.lan.mu.Unlock()
	select {
	case to.streams <- &conn{far, w.addr}:
		return &conn{near, to.addr}, nil
	case <-time.After(timeout):
		near.Close()
		far.Close()
		return nil, errors.New("i/o timeout")
	}
}

// pump copies until either side ends.
func pump(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
}

type conn struct {
	net.Conn
	remote net.Addr
}

func (c *conn) RemoteAddr() net.Addr { return c.remote }
