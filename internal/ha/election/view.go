package election

import "proxyd/internal/clock"

// A View is what a Machine knows, for status and metrics. Instants are by the node's
// own clock; 0 is never.
type View struct {
	Role   Role
	Term   uint64        // highest known
	Ill    Ill           // as told by Fitness
	Deaf   bool          // as told by Deaf
	Until  clock.Instant // end of the lease held; 0 if this node does not hold
	Since  clock.Instant // begin of the unbroken hold; 0 if this node does not hold
	Reason Reason        // why this node got the address; "" if it does not hold
	Sole   bool          // of two voters, holds without the other's promise
	Chosen bool          // holds because somebody wanted it here: Preempt does not count
	Heir   ID            // the successor that a hand-over waits for

	PromisedTo    ID // whose promise this voter keeps, itself included
	PromisedUntil clock.Instant

	Holder ID            // who holds, as far as was heard; "" if nobody or not known
	Heard  clock.Instant // when that was heard last
	Peers  []PeerView    // the other voters, the best candidate first
}

// A PeerView is what a Machine knows of another voter from its messages.
type PeerView struct {
	ID    ID
	Heard clock.Instant // latest message
	Ill   Ill           // as it said then
	Holds bool          // held, as it said then
	Gone  bool          // its process is gone and nothing was heard since
}

// Role returns what the Machine is as of its latest Step.
func (m *Machine) Role() Role { return m.role }

// Chosen reports whether this node holds because somebody wanted it here. Preempt does not
// count then.
func (m *Machine) Chosen() bool { return m.role == Holder && m.chosen }

// View returns what the Machine knows as of its latest Step.
func (m *Machine) View() View {
	v := View{Role: m.role, Term: m.seen, Ill: m.ill, Deaf: m.deaf}
	if m.role == Holder {
		v.Until, v.Since, v.Reason, v.Sole, v.Chosen = m.until, m.since, m.held, m.pair.sole, m.Chosen()
	}
	if m.now < m.heirEnd() {
		v.Heir = m.heir.to
	}
	if m.promised() {
		v.PromisedTo, v.PromisedUntil = m.promise.to, m.promise.until
	}
	if m.holder != "" && m.now < m.holderEnd() {
		v.Holder, v.Heard = m.holder, m.last
	}
	for i := range m.peers {
		p := &m.peers[i]
		v.Peers = append(v.Peers, PeerView{p.id, p.heard, p.info.Ill, p.info.Holds, p.gone != 0})
	}
	return v
}
