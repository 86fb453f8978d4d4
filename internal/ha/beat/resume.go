package beat

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"syscall"

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

// memoryVersion is that of what a Mesh leaves to the next process, which goes on with the
// same life: the others need not notice anything.
const memoryVersion = 1

// fields is what must be known of a peer's present life. Its cipher is derived anew.
func (s *session) fields() memory.Fields {
	return memory.Fields{
		"epoch": &s.epoch, "challenge": &s.challenge, "theirs": &s.theirs,
		"window": memory.Fields{"highest": &s.window.highest, "seen": &s.window.seen},
	}
}

// seqGap is how far the next process goes beyond our last sequence number. What we still
// send meanwhile must not have a number of its: with one key that would be one nonce twice.
const seqGap = 1 << 32

// Memory returns what the next process must know to go on with this life.
func (m *Mesh) Memory() (json.RawMessage, error) {
	peers := memory.Fields{}
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		p.mu.Lock()
		session, seq, heard, newest := p.session, p.seq+seqGap, p.alive, p.newest
		p.mu.Unlock()
		peers[string(p.id)] = memory.Fields{"seq": &seq, "heard": &heard, "newest": &newest, "session": session.fields()}
	}
	calls := m.calls.all()
	return memory.Write(memoryVersion, memory.Fields{"epoch": &m.epoch, "peers": peers, "calls": &calls})
}

// Recall goes on with the life whose Memory it is. It is called before Run.
func (m *Mesh) Recall(text json.RawMessage) error {
	heard, peers := make([]bool, len(m.peers)), memory.Fields{}
	for i, p := range m.peers {
		if p != nil {
			peers[string(p.id)] = memory.Fields{"seq": &p.seq, "heard": &heard[i], "newest": &p.newest, "session": p.session.fields()}
		}
	}
	var calls []byte
	if err := memory.Read(text, memoryVersion, memory.Fields{"epoch": &m.epoch, "peers": peers, "calls": &calls}); err != nil {
		return fmt.Errorf("heartbeat of the process before: %w", err)
	}
	m.calls.recall(calls)
	k := (*m.ring.Load())[0]
	for i, p := range m.peers {
		if p == nil {
			continue
		}
		var err error
		if p.out, err = k.life(m.Self, p.id, m.epoch); err != nil {
			return err
		}
		if p.session.epoch == 0 {
			continue
		}
		if p.session.cipher, err = k.life(p.id, m.Self, p.session.epoch); err != nil {
			return err
		}
		p.alive = p.alive || heard[i] // else nobody would notice its silence
	}
	return nil
}
