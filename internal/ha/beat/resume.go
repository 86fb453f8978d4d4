package beat

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"proxyd/internal/ha/election"
	"proxyd/internal/memory"
)

// Openers open the sockets of a Mesh. A nil one is that of package net. They are there for a
// process that takes another's place, and its sockets.
type Openers struct {
	UDP func(at netip.AddrPort) (*net.UDPConn, error)
	TCP func(at netip.AddrPort) (net.Listener, error)
}

// socket opens the socket of a path. Only the first, of the address in join, is handed from
// one process to the next; on the others both may listen.
func (o Openers) socket(first bool, at netip.AddrPort, device string) (socket, error) {
	if !first || o.UDP == nil {
		return openSocket(at, device)
	}
	c, err := o.UDP(at)
	if err != nil {
		return socket{}, err
	}
	defer c.Close()
	return adopt(c)
}

func (o Openers) tcp(at netip.AddrPort) (net.Listener, error) {
	if o.TCP != nil {
		return o.TCP(at)
	}
	return net.Listen("tcp", at.String())
}

// Sockets returns the open sockets by network and address, for the process that takes this
// one's place.
func (m *Mesh) Sockets() map[string]syscall.Conn {
	out := map[string]syscall.Conn{}
	if at, err := Address(m.Self); err == nil {
		out["udp "+at.String()] = m.sockets[0].file
	}
	if c, ok := m.tcp.(syscall.Conn); ok {
		out["tcp "+m.tcp.Addr().String()] = c
	}
	return out
}

// legacy is what a Mesh leaves to the next process, which goes on with the same life: the
// others need not notice anything.
type legacy struct {
	Epoch uint64                        `json:"epoch"`
	Peers map[election.ID]legacyOfAPeer `json:"peers"`
}

type legacyOfAPeer struct {
	Seq     uint64          `json:"seq"`
	Heard   bool            `json:"heard"`
	Session json.RawMessage `json:"session"`
}

// seqGap is how far the next process goes beyond our last sequence number. What we still
// send meanwhile must not have a number of its: with one key that would be one nonce twice.
const seqGap = 1 << 32

// Memory returns what the next process must know to go on with this life.
func (m *Mesh) Memory() (json.RawMessage, error) {
	l := legacy{Epoch: m.epoch, Peers: map[election.ID]legacyOfAPeer{}}
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		p.mu.Lock()
		s, err := memory.Of(&p.session)
		heard, seq := p.alive, p.seq
		p.mu.Unlock()
		if err != nil {
			return nil, err
		}
		l.Peers[p.id] = legacyOfAPeer{Seq: seq + seqGap, Heard: heard, Session: s}
	}
	return json.Marshal(l)
}

// Recall goes on with the life whose Memory it is. It is called before Run.
func (m *Mesh) Recall(text json.RawMessage) error {
	var l legacy
	if err := json.Unmarshal(text, &l); err != nil {
		return fmt.Errorf("heartbeat of the process before: %w", err)
	}
	m.epoch = l.Epoch
	k := (*m.ring.Load())[0]
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		was := l.Peers[p.id]
		var err error
		if p.out, err = k.life(m.Self, p.id, m.epoch); err != nil {
			return err
		}
		p.seq = was.Seq
		if len(was.Session) == 0 {
			continue
		}
		if err := memory.Recall(&p.session, was.Session); err != nil {
			return err
		}
		if p.session.epoch == 0 {
			continue
		}
		if p.session.cipher, err = k.life(p.id, m.Self, p.session.epoch); err != nil {
			return err
		}
		if was.Heard {
			p.alive = true // else nobody would notice its silence
		}
	}
	return nil
}
