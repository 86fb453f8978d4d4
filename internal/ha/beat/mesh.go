package beat

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
)

// A Carrier takes datagrams to other nodes on a way of its own. What arrives on it is
// given to Mesh.Receive. It may lose, delay, double and reorder.
type Carrier interface {
	// Carry sends a datagram to a voter. It does not block and keeps no reference to b.
	Carry(to election.ID, b []byte)
}

// Config is what a Mesh must know.
type Config struct {
	Cluster   string
	Secret    string
	Self      election.ID // an address of Voters
	Voters    []election.ID
	Heartbeat time.Duration
	Devices   []string // interfaces of the virtual addresses, by which a challenge is sent too
	// Unheard, if set, is told ten times a second the address of each peer that is not heard.
	Unheard func(netip.Addr)
	Now     func() clock.Instant
	Log     *slog.Logger
	Open    Openers
}

// A Mesh connects the voters: what is given to Send goes out on every carrier, what
// comes in first is delivered, copies and recordings are dropped. It implements ha.Mesh.
type Mesh struct {
	Config
	keys     keys
	self     uint8
	epoch    uint64
	peers    []*peer // by place in Voters, nil for ourselves
	events   chan ha.MeshEvent
	udp      *net.UDPConn
	tcp      net.Listener
	carriers []Carrier
	dropped  drops

	ending sync.RWMutex // guards ended and the closing of events
	ended  bool

	bufs sync.Pool // *[]byte for datagrams on their way out
}

// A peer is another voter.
type peer struct {
	id   election.ID
	addr netip.AddrPort // of its heartbeat and lifeline sockets

	out cipher.AEAD // of what this life of ours sends to it
	seq atomic.Uint64

	mu      sync.Mutex
	session session
	heard   clock.Instant // when it was last heard; 0 never, or silent since
	line    net.Conn      // our lifeline to it, if there is one
}

// events are bounded; the oldest kind of news (a datagram) is what is lost when the
// reader is that far behind, for the next beat says the same again.
const eventRoom = 1024

// Listen opens the heartbeat and lifeline sockets, one port above the address that Self
// is known by, and adds further carriers. Close ends it.
func Listen(c Config, carriers ...Carrier) (*Mesh, error) {
	m := &Mesh{Config: c, keys: keys{[]byte(c.Secret), c.Cluster}, carriers: carriers, events: make(chan ha.MeshEvent, eventRoom)}
	m.bufs.New = func() any { b := make([]byte, 0, 2048); return &b }
	m.Voters = slices.Sorted(slices.Values(c.Voters))
	place := slices.Index(m.Voters, c.Self)
	if place < 0 || len(m.Voters) > 255 {
		return nil, fmt.Errorf("heartbeat: %s is not one of the voters %v", c.Self, c.Voters)
	}
	m.self = mark(c.Self)
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	m.epoch = binary.BigEndian.Uint64(random[:]) | 1
	for i, v := range m.Voters {
		a, err := Address(v)
		if err != nil {
			return nil, err
		}
		if i == place {
			m.peers = append(m.peers, nil)
			if m.udp, err = c.Open.udp(a); err != nil {
				return nil, fmt.Errorf("heartbeat socket %v: %w", a, err)
			}
			if m.tcp, err = c.Open.tcp(a); err != nil {
				m.udp.Close()
				return nil, fmt.Errorf("lifeline socket %v: %w", a, err)
			}
			continue
		}
		p := &peer{id: v, addr: a, session: newSession()}
		if p.out, err = m.keys.life(m.Self, v, m.epoch); err != nil {
			return nil, err
		}
		m.peers = append(m.peers, p)
	}
	return m, nil
}

// Address returns where a voter's heartbeat and lifeline sockets are: one port above
// the one in its name.
func Address(id election.ID) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(string(id))
	if err != nil {
		return a, fmt.Errorf("voter %s: %w", id, err)
	}
	return netip.AddrPortFrom(a.Addr(), a.Port()+1), nil
}

// Run moves datagrams and keeps the lifelines until ctx ends. It closes the sockets and
// then Events.
func (m *Mesh) Run(ctx context.Context) {
	ended := ctx.Done()
	// The lifelines end after the listener: who sees one end asks for another at once, and
	// must be refused to know that this process is gone.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var all sync.WaitGroup
	all.Go(m.read)
	all.Go(func() { m.serveLifelines(ctx) })
	all.Go(func() { m.watch(ctx) })
	all.Go(func() { m.seek(ctx) })
	all.Go(func() { m.dropped.report(ctx, m.Log) })
	for _, p := range m.peers {
		if p != nil {
			all.Go(func() { m.keepLifeline(ctx, p) })
		}
	}
	<-ended
	m.tcp.Close()
	m.udp.Close()
	cancel()
	all.Wait()
	m.ending.Lock()
	defer m.ending.Unlock()
	m.ended = true
	close(m.events)
}

// Events implements ha.Mesh.
func (m *Mesh) Events() <-chan ha.MeshEvent { return m.events }

// Send implements ha.Mesh: msg goes out on every carrier as one datagram, so that the
// copy which comes second is known for a copy.
func (m *Mesh) Send(to election.ID, msg []byte) {
	p := m.peer(to)
	if p == nil || len(msg) > maxDatagram-overhead {
		return
	}
	p.mu.Lock()
	proof := p.session.proof()
	p.mu.Unlock()
	buf := m.bufs.Get().(*[]byte)
	*buf = seal(*buf, p.out, head{m.self, m.epoch, p.seq.Add(1)}, proof, msg)
	// A full socket buffer or an unreachable network loses it, as the network may.
	_, _ = m.udp.WriteToUDPAddrPort(*buf, p.addr)
	for _, c := range m.carriers {
		c.Carry(to, *buf)
	}
	m.bufs.Put(buf)
}

func (m *Mesh) peer(id election.ID) *peer {
	for _, p := range m.peers {
		if p != nil && p.id == id {
			return p
		}
	}
	return nil
}

func (m *Mesh) read() {
	buf := make([]byte, maxDatagram+1)
	for {
		n, _, err := m.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if isClosed(err) {
				return
			}
			continue // an ICMP error of an earlier datagram
		}
		m.Receive(buf[:n])
	}
}

// Receive takes in a datagram that came on any carrier. It decrypts b in place and
// keeps no reference to it.
func (m *Mesh) Receive(b []byte) {
	now := m.Now()
	if err := m.receive(now, b); err != nil {
		m.dropped.count(err)
	}
}

func (m *Mesh) receive(now clock.Instant, b []byte) error {
	h, err := parseHead(b)
	if err != nil {
		return err
	}
	err, from := errStranger, m.marked(h.sender)
	for i, p := range from {
		one := b
		if i < len(from)-1 {
			one = slices.Clone(b) // it is decrypted in place, and another may be meant
		}
		if err = m.receiveFrom(now, h, p, one); err != errStranger {
			break
		}
	}
	return err
}

// mark is a byte by which the sender of a datagram is known. It goes by the voter's name and
// not by its place, so that nodes whose lists differ by one hear each other all the same. Two
// voters may have the same mark; the key tells them apart.
func mark(id election.ID) uint8 {
	h := fnv.New32a()
	h.Write([]byte(id))
	s := h.Sum32()
	return uint8(s ^ s>>8 ^ s>>16 ^ s>>24)
}

// marked returns the peers that have a mark.
func (m *Mesh) marked(of uint8) (out []*peer) {
	for _, p := range m.peers {
		if p != nil && mark(p.id) == of {
			out = append(out, p)
		}
	}
	return out
}

// receiveFrom takes in a datagram if it is p's.
func (m *Mesh) receiveFrom(now clock.Instant, h head, p *peer, b []byte) error {
	var err error
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.session.cipher
	if h.epoch != p.session.epoch || c == nil {
		if c, err = m.keys.life(p.id, m.Self, h.epoch); err != nil {
			return err
		}
	}
	proof, payload, err := open(b, c)
	if err != nil {
		return err
	}
	begun, err := p.session.accept(h, c, proof)
	if err != nil {
		return err
	}
	if !m.hear(p, now, begun) {
		return errFull
	}
	if len(payload) > 0 {
		m.tell(ha.MeshEvent{Kind: ha.Message, From: p.id, Msg: slices.Clone(payload), At: now})
	}
	return nil
}

// hear notes that p was heard, and reports whether that could be told. p.mu is held.
func (m *Mesh) hear(p *peer, now clock.Instant, begun bool) bool {
	if begun && p.line != nil {
		// It leads to a life that is over, perhaps on a host that lost its power and will
		// never say so.
		p.line.Close()
	}
	if (p.heard == 0 || begun) && !m.tell(ha.MeshEvent{Kind: ha.Alive, From: p.id, At: now}) {
		p.heard = 0 // the next datagram tells it
		return false
	}
	p.heard = now
	return true
}

// tell queues an event, and reports whether there was room for it. A carrier may outlive
// the mesh and still deliver: what it brings after the end is dropped.
func (m *Mesh) tell(e ha.MeshEvent) bool {
	m.ending.RLock()
	defer m.ending.RUnlock()
	if m.ended {
		return false
	}
	select {
	case m.events <- e:
		return true
	default:
		m.dropped.full.Add(1)
		return false
	}
}

// patience is how long a peer may be silent: six missed beats and a half.
func (m *Mesh) patience() time.Duration { return 6*m.Heartbeat + m.Heartbeat/2 }

// watch tells of peers that fell silent. When it was itself late, nothing can be said of
// the others: what they sent waits in our own sockets.
func (m *Mesh) watch(ctx context.Context) {
	tick := time.NewTicker(m.Heartbeat)
	defer tick.Stop()
	last := m.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := m.Now()
		asleep := now.Sub(last) > 3*m.Heartbeat
		last = now
		if asleep {
			continue
		}
		for _, p := range m.peers {
			if p == nil {
				continue
			}
			p.mu.Lock()
			if quiet := now.Sub(p.heard); p.heard != 0 && quiet > m.patience() &&
				m.tell(ha.MeshEvent{Kind: ha.Silent, From: p.id, At: now, Info: fmt.Sprintf("nothing heard for %v", quiet.Round(time.Millisecond))}) {
				p.heard = 0
			}
			p.mu.Unlock()
		}
	}
}

// seekEvery is how often it is told who is not heard.
const seekEvery = 100 * time.Millisecond

// seek tells who is not heard, beside the loop that judges who is: it may take a while.
func (m *Mesh) seek(ctx context.Context) {
	if m.Unheard == nil {
		return
	}
	for wait(ctx, seekEvery) {
		for _, p := range m.peers {
			if p == nil {
				continue
			}
			p.mu.Lock()
			unheard := p.heard == 0
			p.mu.Unlock()
			if unheard {
				m.Unheard(p.addr.Addr())
			}
		}
	}
}
