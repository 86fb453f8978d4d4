package beat

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
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
	"proxyd/internal/ha/datagram"
	"proxyd/internal/ha/detect"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
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
	Secrets   []string    // the first seals; what is sealed with any of them is believed
	Self      election.ID // an address of Voters
	Voters    []election.ID
	Heartbeat time.Duration
	Interface string   // that of Self, as the name of its path
	Paths     []Path   // further ones
	Devices   []string // interfaces of the virtual addresses, by which a challenge is sent too
	// Unheard, if set, is told ten times a second the address of each peer that is not heard.
	Unheard func(netip.Addr)
	Now     func() clock.Instant
	Log     *slog.Logger
	Open    Openers
	Wire    wire.Range // that are spoken; zero: what this program speaks
}

// A Mesh connects the voters: what is given to Send goes out on every path, what comes
// in first is delivered, copies and recordings are dropped. It implements ha.Mesh.
type Mesh struct {
	Config
	ring    atomic.Pointer[ring]
	self    uint8
	epoch   uint64
	peers   []*peer // by place in Voters, nil for ourselves
	events  chan ha.MeshEvent
	sockets []socket // by path, the one of Self first
	indices []int    // by path: of the interface that its socket is bound to; 0: none. followPaths has them
	tcp     net.Listener
	carrier []Carrier
	dropped drops
	turned  atomic.Int64 // clock.Instant at which the election's loop last said something
	thread  thread
	stamp   stamp         // of our calls
	calls   calls         // of the others
	unheard chan struct{} // has one value when a peer fell silent that seek may not know of

	ending sync.RWMutex // guards ended and the closing of events
	ended  bool

	bufs sync.Pool // *[]byte for datagrams on their way out, and for what is decrypted
}

// A ring is the secrets in force, the one that seals first. It never changes.
type ring []keys

// A peer is another voter.
type peer struct {
	id   election.ID
	mark uint8
	addr netip.AddrPort // of its heartbeat and lifeline sockets

	mu      sync.Mutex
	out     cipher.AEAD // of what this life of ours sends to it
	seq     uint64
	session session
	signs   *detect.Peer
	alive   bool                 // as was told
	ways    []way                // by path, then the one of the carriers
	aimed   []*datagram.Endpoint // by path: where datagrams go, to the peer or to everyone; nil: nowhere
	direct  clock.Instant        // when it was last heard on a path
	rough   clock.Instant        // when there was last a gap in that
	smooth  bool                 // it says that it hears us without gaps
	sent    clock.Instant        // when something last went out to it
	turn    uint                 // counts what Send was given
	stood   uint8                // for how many beats its election loop has stood still
	foreign foreign
	newest  uint8    // version of the wire that it speaks; 0: not heard yet
	line    net.Conn // our lifeline to it, if there is one

	dated  bool          // its calls carry its life and their moment
	called clock.Instant // the moment of the latest call of its present life, by its clock

	lately lately // may be used without mu
}

// A way is how one peer is reached on one path.
type way struct {
	to   netip.AddrPort // not valid: it must be sought
	seen *detect.Peer
}

// fewPaths is how many paths most nodes have at the most.
const fewPaths = 4

// events are bounded; the oldest kind of news (a datagram) is what is lost when the
// reader is that far behind, for the next beat says the same again.
const eventRoom = 1024

// Of what is said, a carrier beside the paths gets each carriedth, so that it is known to
// work, and all while one side does not hear the other without gaps (gap, in half beats)
// for a while.
const (
	carriedth   = 8
	smoothAfter = 5 * time.Second
)

func (m *Mesh) gap() time.Duration { return 2*m.Heartbeat + m.Heartbeat/2 }

// Listen opens the heartbeat sockets and that of the lifelines, one port above the address
// that Self is known by, and adds further carriers. Run ends it, or Close without a Run.
func Listen(c Config, carriers ...Carrier) (*Mesh, error) {
	c.Wire = c.Wire.Or()
	m := &Mesh{Config: c, carrier: carriers, events: make(chan ha.MeshEvent, eventRoom), unheard: make(chan struct{}, 1)}
	m.bufs.New = func() any { b := make([]byte, 0, maxDatagram+1); return &b }
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
	at, err := Address(c.Self)
	if err != nil {
		return nil, err
	}
	m.Paths = append([]Path{{Name: c.Interface, Local: at.Addr()}}, c.Paths...)
	for i, v := range m.Voters {
		if i == place {
			m.peers = append(m.peers, nil)
			continue
		}
		p, err := m.newPeer(v)
		if err != nil {
			return nil, err
		}
		m.peers = append(m.peers, p)
	}
	if err := m.SetSecrets(c.Secrets); err != nil {
		return nil, err
	}
	if err := m.open(at); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *Mesh) open(at netip.AddrPort) (err error) {
	for i, p := range m.Paths {
		local := at
		switch {
		case p.Device != "" && p.Local.Is4():
			local = netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
		case p.Device != "":
			local = netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
		case i > 0:
			local = netip.AddrPortFrom(p.Local, at.Port())
		}
		s, err := m.Open.socket(i == 0, local, p.Device)
		if err != nil {
			return fmt.Errorf("heartbeat socket %v on path %q: %w", local, p.Name, err)
		}
		m.sockets = append(m.sockets, s)
		m.indices = append(m.indices, indexOf(p.Device))
	}
	if m.tcp, err = m.Open.tcp(at); err != nil {
		return fmt.Errorf("lifeline socket %v: %w", at, err)
	}
	return nil
}

// Close closes the sockets of a Mesh that does not come to run.
func (m *Mesh) Close() { m.close() }

func (m *Mesh) close() {
	for _, s := range m.sockets {
		s.close()
	}
	if m.tcp != nil {
		m.tcp.Close()
	}
}

func (m *Mesh) newPeer(id election.ID) (*peer, error) {
	addr, err := Address(id)
	if err != nil {
		return nil, err
	}
	now := m.Now()
	p := &peer{id: id, mark: mark(id), addr: addr, session: newSession(), signs: detect.New(now, m.Heartbeat), rough: now,
		lately: make(lately, latelyPaths+len(m.Paths))}
	for i, path := range m.Paths {
		w := way{to: addr, seen: detect.New(now, m.Heartbeat)}
		if i > 0 {
			w.to = path.Known[id]
		}
		p.ways = append(p.ways, w)
		p.aimed = append(p.aimed, nil)
		p.aim(i, path)
	}
	p.ways = append(p.ways, way{seen: detect.New(now, carriedth*m.Heartbeat)})
	return p, nil
}

// aim sets where datagrams go on a path: to the peer, or to everyone while it is sought.
func (p *peer) aim(on int, path Path) {
	switch to := p.ways[on].to; {
	case to.IsValid():
		p.aimed[on] = datagram.EndpointOf(to)
	case path.Seek.IsValid():
		p.aimed[on] = datagram.EndpointOf(netip.AddrPortFrom(path.Seek, p.addr.Port()))
	}
}

// SetSecrets puts other secrets in force: the first one seals from now on, and what is
// sealed with any of them is believed.
func (m *Mesh) SetSecrets(secrets []string) error {
	var r ring
	for _, s := range secrets {
		r = append(r, keys{[]byte(s), m.Cluster})
	}
	if len(r) == 0 {
		return errors.New("heartbeat: no secret")
	}
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		out, err := r[0].life(m.Self, p.id, m.epoch)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.out = out
		p.mu.Unlock()
	}
	m.ring.Store(&r)
	return nil
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
	var all, readers sync.WaitGroup
	for i := range m.sockets {
		readers.Go(func() { m.read(i) })
	}
	all.Go(func() { m.beat(ctx) })
	all.Go(func() { m.serveLifelines(ctx) })
	all.Go(func() { m.seek(ctx) })
	all.Go(func() { m.followPaths(ctx) })
	all.Go(func() { m.dropped.report(ctx, m.Log) })
	for _, p := range m.peers {
		if p != nil {
			all.Go(func() { m.keepLifeline(ctx, p) })
		}
	}
	<-ended
	m.tcp.Close()
	cancel()
	all.Wait() // the thread uses the sockets to the end
	m.close()
	readers.Wait()
	m.ending.Lock()
	defer m.ending.Unlock()
	m.ended = true
	close(m.events)
}

// Events implements ha.Mesh.
func (m *Mesh) Events() <-chan ha.MeshEvent { return m.events }

// Send implements ha.Mesh: msg goes out on every path as one datagram, so that the copy
// which comes second is known for a copy. It is the word of the election's loop, by which
// the heartbeat's thread knows that the loop turns.
func (m *Mesh) Send(to election.ID, msg []byte) {
	now := m.Now()
	m.turned.Store(int64(now))
	p := m.peer(to)
	if p == nil || len(msg) > maxDatagram-overhead {
		return
	}
	buf := m.bufs.Get().(*[]byte)
	var room [fewPaths]*datagram.Endpoint
	p.mu.Lock()
	*buf = m.say(p, now, *buf, 0, msg)
	out := append(room[:0], p.aimed...)
	carried := !p.smooth || !m.smooth(p, now) || p.turn%carriedth == 0
	p.turn++
	p.mu.Unlock()
	m.send(out, *buf)
	if carried {
		for _, c := range m.carrier {
			c.Carry(to, *buf)
		}
	}
	m.bufs.Put(buf)
}

// send sends a datagram on every path. No lock is held: the answer may be here before the
// last of them is out, and whoever reads it must not wait.
func (m *Mesh) send(to []*datagram.Endpoint, b []byte) {
	for i, to := range to {
		if to != nil {
			_ = datagram.Send(m.sockets[i].fd, b, to) // lost, as the network may lose it
		}
	}
}

// say seals a datagram for p into buf. p.mu is held.
func (m *Mesh) say(p *peer, now clock.Instant, buf []byte, stood uint8, payload []byte) []byte {
	proof := p.session.proof()
	proof.stood, proof.flags = stood, dated
	if m.smooth(p, now) {
		proof.flags |= smooth
	}
	p.seq++
	p.sent = now
	p.lately.note(latelyTold)
	return seal(buf, p.out, head{m.Wire.To(p.newest), m.Wire.Newest, m.self, p.mark, m.epoch, p.seq}, proof, payload)
}

// smooth reports whether p has been heard on a path without a gap for a while. p.mu is held.
func (m *Mesh) smooth(p *peer, now clock.Instant) bool {
	return now.Sub(p.rough) > smoothAfter && now.Sub(p.direct) < m.gap()
}

func (m *Mesh) peer(id election.ID) *peer {
	for _, p := range m.peers {
		if p != nil && p.id == id {
			return p
		}
	}
	return nil
}

// Receive takes in a datagram that came on a carrier.
func (m *Mesh) Receive(b []byte) {
	room := m.bufs.Get().(*[]byte)
	m.take(b, len(m.Paths), netip.AddrPort{}, *room)
	m.bufs.Put(room)
}

// take takes in a datagram that came on a path, or a carrier, and decrypts it into room.
func (m *Mesh) take(b []byte, on int, from netip.AddrPort, room []byte) {
	if err := m.receive(b, on, from, room); err != nil {
		m.dropped.count(err)
	}
}

func (m *Mesh) receive(b []byte, on int, from netip.AddrPort, room []byte) error {
	now := m.Now()
	h, err := parseHead(b, m.Wire)
	if errors.Is(err, errVersion) {
		m.unreadable(now, h, on, from)
	}
	if err != nil {
		return err
	}
	candidates := m.marked(h.sender)
	switch {
	case h.receiver != m.self && (len(candidates) > 0 || h.sender == m.self):
		return errOthers
	case h.receiver != m.self || len(candidates) == 0:
		return errStranger
	}
	for _, p := range candidates {
		if err = m.receiveFrom(now, h, p, b, on, from, room); !errors.Is(err, errStranger) {
			return err
		}
	}
	m.strange(candidates[0], now, on, from)
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
		if p != nil && p.mark == of {
			out = append(out, p)
		}
	}
	return out
}

// receiveFrom takes in a datagram if it is p's.
func (m *Mesh) receiveFrom(now clock.Instant, h head, p *peer, b []byte, on int, from netip.AddrPort, room []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, proof, payload, err := m.unseal(p, h, b, room)
	if err != nil {
		return err
	}
	begun, err := p.session.accept(h, c, proof)
	if !errors.Is(err, errReplay) {
		// Of a life that is not believed yet, too: it may be one that went back a release, and
		// can only answer what it can read.
		p.newest = h.newest
	}
	if err == nil || errors.Is(err, errReplay) {
		m.credit(p, now, on, from, h)
	}
	if err != nil {
		return err
	}
	p.foreign = foreign{}
	p.stood = proof.stood
	p.smooth, p.dated = proof.flags&smooth != 0, proof.flags&dated != 0
	if begun {
		p.called = 0
	}
	if !m.hear(p, now, h, begun) {
		return errFull
	}
	if len(payload) > 0 {
		m.tell(ha.MeshEvent{Kind: ha.Message, From: p.id, Msg: slices.Clone(payload), At: now, Newest: h.newest})
	}
	return nil
}

// unseal finds the key of a datagram: that of the peer's present life, mostly.
func (m *Mesh) unseal(p *peer, h head, b, room []byte) (cipher.AEAD, proof, []byte, error) {
	if c := p.session.cipher; c != nil && h.epoch == p.session.epoch {
		if proof, payload, err := open(room, b, c); err == nil {
			return c, proof, payload, nil
		}
	}
	for _, k := range *m.ring.Load() {
		c, err := k.life(p.id, m.Self, h.epoch)
		if err != nil {
			return nil, proof{}, nil, err
		}
		if proof, payload, err := open(room, b, c); err == nil {
			return c, proof, payload, nil
		}
	}
	return nil, proof{}, nil, errStranger
}

// credit notes on which path an authentic datagram came, a copy too. p.mu is held.
func (m *Mesh) credit(p *peer, now clock.Instant, on int, from netip.AddrPort, h head) {
	w := &p.ways[on]
	w.seen.Beat(now, h.epoch, h.seq)
	if on == len(m.Paths) {
		return
	}
	p.lately.note(latelyPaths + on)
	if now.Sub(p.direct) > m.gap() {
		p.rough = now
	}
	p.direct = now
	if on > 0 && w.to != from && m.Paths[on].Seek.IsValid() {
		w.to = from
		p.aim(on, m.Paths[on])
	}
}

// hear notes that p was heard, and reports whether that could be told. p.mu is held.
func (m *Mesh) hear(p *peer, now clock.Instant, h head, begun bool) bool {
	if begun && p.line != nil {
		// It leads to a life that is over, perhaps on a host that lost its power and will
		// never say so.
		p.line.Close()
	}
	// What counts is when its election's loop last turned. A thread that goes on beating
	// for a loop that does not turn is no sign of life.
	at := now.Add(-time.Duration(p.stood) * m.Heartbeat)
	p.signs.BeatOf(now, at, h.epoch, h.seq)
	if p.stood == 0 {
		p.lately.note(latelyHeard)
	}
	if p.alive && !begun || p.signs.Silent(now) {
		return true
	}
	p.alive = m.tell(ha.MeshEvent{Kind: ha.Alive, From: p.id, At: now})
	return p.alive // else the next datagram tells it
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

// seekEvery is how often it is told who is not heard, while there is anyone.
const seekEvery = 100 * time.Millisecond

// seek tells who is not heard, beside the thread that judges who is: it may take a while.
func (m *Mesh) seek(ctx context.Context) {
	if m.Unheard == nil {
		return
	}
	for wait(ctx, seekEvery) {
		if m.tellUnheard() {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-m.unheard:
		}
	}
}

// tellUnheard tells who is not heard, and reports whether there is anyone.
func (m *Mesh) tellUnheard() (is bool) {
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		p.mu.Lock()
		alive := p.alive
		p.mu.Unlock()
		if !alive {
			is = true
			m.Unheard(p.addr.Addr())
		}
	}
	return is
}
