// Package gossip is the membership of the cluster, on memberlist: who can be reached,
// the state that all nodes share, and a carrier of the mesh beside the heartbeat.
package gossip

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

// Config is what a Gossip must know.
type Config struct {
	Cluster   string
	Secrets   []string    // the first seals; what is sealed with any of them is believed
	Self      election.ID // the address it binds and is known by
	Voters    []election.ID
	Transport memberlist.Transport                       // nil: real sockets, of the two below
	ListenTCP func(address string) (net.Listener, error) // nil: net.Listen
	ListenUDP func(address string) (*net.UDPConn, error) // nil: net.ListenUDP
	Log       *slog.Logger
	Wire      wire.Range // versions that are spoken; zero: what this program speaks

	// Receive is given the datagrams that Carry sent on the other side. It must not block
	// and must not keep b. It is set before Join.
	Receive func(b []byte)
	// State is what all nodes share; nil shares nothing.
	State State
	// Answer says what to answer to what another node asked by Ask. It is called by a
	// goroutine of its own; nil answers nothing.
	Answer func(from election.ID, question []byte) []byte
}

// State is what nodes give each other whole when they meet, and from time to time; what
// is new in it they are told at once, by Tell.
type State interface {
	Encode(version uint8) []byte // in a version of the wire
	Merge(b []byte) error
}

// A Gossip is this node's membership. Start makes one; Run ends it, or Close without a Run.
type Gossip struct {
	Config
	list    *memberlist.Memberlist
	ring    *memberlist.Keyring
	address map[election.ID]memberlist.Address

	mu    sync.Mutex
	alive map[string]uint8 // by name, without ourselves: the newest version of the wire that it speaks

	sockets *sockets      // nil with another Transport
	handed  atomic.Bool   // another process is this member now
	refused atomic.Uint64 // packets with another key, or junk

	queue   memberlist.TransmitLimitedQueue
	streams chan struct{} // has one for each stream of large news
	asking  asking
}

// rejoin is how often nodes that are configured and not members are asked to join.
// memberlist forgets a member that it took for dead and never asks it again: after a cut
// of a pair both sides would stay alone for ever.
const rejoin = time.Second

// Start binds the sockets. Nobody is contacted before Run.
func Start(c Config) (*Gossip, error) {
	c.Wire = c.Wire.Or()
	keys, err := c.keys(c.Secrets)
	if err != nil {
		return nil, err
	}
	self, err := parseID(c.Self)
	if err != nil {
		return nil, err
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, err
	}
	g := &Gossip{Config: c, ring: ring, address: map[election.ID]memberlist.Address{}, alive: map[string]uint8{},
		streams: make(chan struct{}, maxStreams), asking: asking{waiting: map[token]chan message{}, passes: map[token]time.Time{}}}
	g.queue = memberlist.TransmitLimitedQueue{NumNodes: func() int { return len(g.Alive()) }, RetransmitMult: 4}
	for _, v := range c.Voters {
		g.address[v] = memberlist.Address{Addr: string(v), Name: string(v)}
	}
	m := memberlist.DefaultLANConfig()
	m.Name = string(c.Self)
	m.BindAddr, m.BindPort = self.Addr().String(), int(self.Port())
	m.AdvertiseAddr, m.AdvertisePort = m.BindAddr, m.BindPort
	m.Label = c.Cluster
	m.Keyring = ring
	if m.Transport = c.Transport; m.Transport == nil {
		if g.sockets, err = openSockets(c, func() { g.refused.Add(1) }); err != nil {
			return nil, fmt.Errorf("gossip socket %s: %w", c.Self, err)
		}
		m.Transport = g.sockets
	}
	// On a LAN these find a dead member within a second without false alarms; the
	// election does not wait for them.
	m.ProbeInterval, m.ProbeTimeout = 500*time.Millisecond, 200*time.Millisecond
	m.SuspicionMult = 3
	m.GossipInterval = 200 * time.Millisecond
	m.PushPullInterval = 15 * time.Second
	m.TCPTimeout = 2 * time.Second
	m.EnableCompression = false         // nearly all that is sent is sealed already, and does not shrink
	m.DeadNodeReclaimTime = time.Second // a node that restarts keeps its name and address
	m.Delegate = (*delegate)(g)
	m.Events = (*events)(g)
	m.LogOutput = &logFilter{log: c.Log, refused: &g.refused}
	if g.list, err = memberlist.Create(m); err != nil {
		if g.sockets != nil {
			_ = g.sockets.Shutdown()
		}
		return nil, fmt.Errorf("gossip socket %s: %w", c.Self, err)
	}
	return g, nil
}

// keys derives memberlist's keys of secrets.
func (c Config) keys(secrets []string) (keys [][]byte, err error) {
	for _, s := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(s), []byte("proxyd "+c.Cluster), "gossip", 32)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("gossip: no secret")
	}
	return keys, nil
}

// SetSecrets puts other secrets in force: the first one seals from now on, and what is
// sealed with any of them is believed. It is called by one goroutine at a time.
func (g *Gossip) SetSecrets(secrets []string) error {
	keys, err := g.keys(secrets)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := g.ring.AddKey(key); err != nil {
			return err
		}
	}
	if err := g.ring.UseKey(keys[0]); err != nil {
		return err
	}
	// From the end: memberlist moves those behind one that it removes, while it reads them.
	for _, old := range slices.Backward(slices.Clone(g.ring.GetKeys())) {
		if !slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, old) }) {
			if err := g.ring.RemoveKey(old); err != nil {
				return err
			}
		}
	}
	return nil
}

// Run joins the configured voters, again and again those that are missing, until ctx
// ends; then it leaves and closes the sockets.
func (g *Gossip) Run(ctx context.Context) {
	var warned uint64
	for n := 1; ; n++ {
		if missing := g.missing(); len(missing) > 0 {
			// What cannot be joined now is tried again; the status shows who is missing.
			_, _ = g.list.Join(missing)
		}
		select {
		case <-ctx.Done():
			if !g.handed.Load() {
				_ = g.list.Leave(200 * time.Millisecond)
			}
			_ = g.list.Shutdown()
			return
		case <-time.After(clock.Next(rejoin)):
		}
		if refused := g.refused.Load(); n%60 == 0 && refused > warned {
			g.Log.Warn("gossip packets dropped: another key, version or program", "count", refused-warned)
			warned = refused
		}
	}
}

// Close closes the sockets of a Gossip that does not come to run.
func (g *Gossip) Close() error { return g.list.Shutdown() }

// missing returns the voters that are configured and not members.
func (g *Gossip) missing() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for _, v := range g.Voters {
		if _, alive := g.alive[string(v)]; v != g.Self && !alive {
			out = append(out, string(v))
		}
	}
	return out
}

// Alive returns which voters memberlist has as members now, ourselves included.
func (g *Gossip) Alive() []election.ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := []election.ID{g.Self}
	for _, v := range g.Voters {
		if _, alive := g.alive[string(v)]; alive {
			out = append(out, v)
		}
	}
	return out
}

// to returns the version of the wire to speak to a member, or to one that is none yet.
func (g *Gossip) to(v election.ID) uint8 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.Wire.To(g.alive[string(v)])
}

// common returns the version that every voter understands. One that is no member may come
// back as any release.
func (g *Gossip) common() uint8 {
	g.mu.Lock()
	defer g.mu.Unlock()
	version := g.Wire.Newest
	for _, v := range g.Voters {
		if v != g.Self {
			version = min(version, g.Wire.To(g.alive[string(v)]))
		}
	}
	return version
}

// Refused returns how many packets were dropped because of another key, or as junk.
func (g *Gossip) Refused() uint64 { return g.refused.Load() }

// Carry implements beat.Carrier.
func (g *Gossip) Carry(to election.ID, b []byte) {
	if a, known := g.address[to]; known {
		_ = g.list.SendToAddress(a, b)
	}
}

// delegate is what memberlist asks and tells. Its methods run on the packet loop.
type delegate Gossip

// NodeMeta says the newest version of the wire that this node speaks. A later release may
// say more behind it.
func (d *delegate) NodeMeta(int) []byte { return []byte{d.Wire.Newest} }

func (d *delegate) NotifyMsg(b []byte) { (*Gossip)(d).receive(b) }

func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.queue.GetBroadcasts(overhead, limit)
}

func (d *delegate) LocalState(bool) []byte {
	if d.State == nil {
		return nil
	}
	return d.State.Encode((*Gossip)(d).common())
}

func (d *delegate) MergeRemoteState(b []byte, _ bool) { (*Gossip)(d).merge(b) }

// events keeps Gossip.alive.
type events Gossip

func (e *events) NotifyJoin(n *memberlist.Node) { e.NotifyUpdate(n) }
func (e *events) NotifyUpdate(n *memberlist.Node) {
	if n.Name == string(e.Self) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.alive[n.Name] = 0
	if len(n.Meta) > 0 {
		e.alive[n.Name] = n.Meta[0]
	}
}

func (e *events) NotifyLeave(n *memberlist.Node) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.alive, n.Name)
}

// parseID returns the address that a voter is known by.
func parseID(id election.ID) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(string(id))
	if err != nil {
		return a, fmt.Errorf("gossip: voter %s: %w", id, err)
	}
	return a, nil
}
