package election

import (
	"cmp"
	"slices"

	"proxyd/internal/clock"
)

// giveBeats is how many beats a named successor has to take the address: a lease, for it
// may be given many at once, or be busy.
const giveBeats = 6

// avoidLeases is for how many leases nothing is handed to one who did not take it.
const avoidLeases = 20

// campaign begins to ask for promises, under a term above all that are known.
func (m *Machine) campaign() {
	m.role = Candidate
	m.term = m.above(max(m.seen, m.granted, m.term))
	m.first = m.term
	m.quit = m.now.Add(m.Lease)
	for i := range m.peers {
		m.peers[i].acked = false
	}
	m.ask()
}

// above returns our next term above t. Each voter has its own residue, so no two of one
// list of voters use the same term.
func (m *Machine) above(t uint64) uint64 {
	n := uint64(len(m.Voters))
	mine := uint64(0)
	for _, v := range m.Voters {
		if v < m.Self {
			mine++
		}
	}
	return t + 1 + (mine+n-(t+1)%n)%n
}

// ask begins a round: of a candidacy, or of the renewal of a lease.
func (m *Machine) ask() {
	m.asked = m.now
	m.next = m.beat()
	m.granted, m.grantee = m.term, m.Self
	m.seen = max(m.seen, m.term)
	m.promise = promise{m.Self, m.term, m.now.Add(m.Lease + m.Guard)}
	m.sendAll(Msg{Kind: Ask, Term: m.term, Sent: m.now})
	m.count()
}

// granting takes in a promise.
func (m *Machine) granting(p *peer, msg Msg) {
	if m.role < Candidate || msg.Term < m.first || msg.Term > m.term || msg.Sent > m.asked {
		return
	}
	if p.acked && (msg.Sent < p.ack || msg.Sent == p.ack && msg.Term <= p.ackTerm) {
		return
	}
	p.acked, p.ack, p.ackTerm = true, msg.Sent, msg.Term
	m.reunited(p)
	m.count()
}

// refused takes in that a voter does not promise.
func (m *Machine) refused(p *peer, msg Msg) {
	switch {
	case m.giving() && p.id == m.heir.to && msg.To == m.Self && msg.Sent == 0:
		m.takeBack() // the successor cannot
	case m.role < Candidate:
	case msg.Term > m.term && (msg.To == "" || msg.To == m.Self || msg.To == p.id) && !msg.Info.Holds && !msg.Info.Quiet:
		// Only the term is in the way, or a candidacy that may give way to us. A lease that
		// is held still counts on what was promised under the old term.
		m.term = m.above(msg.Term)
		m.ask()
	default:
		m.pairRefused(msg)
	}
}

// count works out how far a majority of promises reaches. The lease counts from when
// we asked, not from when the answers came: a voter's promise began at some moment
// between the two, so this is the side on which to err.
//
// A promise binds its voter for a time and, under whatever term it was given, keeps others
// out for that time. That later holders have a higher term is another matter: it holds of a
// term that a majority promised, for one of them is in the majority of whoever comes next,
// and promises no lower one. So a lease begins only when a majority promised one and the
// same term, and a term that rises meanwhile is the lease's once a majority promised that.
func (m *Machine) count() {
	asked, same := []clock.Instant{m.asked}, 1
	for i := range m.peers {
		p := &m.peers[i]
		if !p.acked {
			continue
		}
		asked = append(asked, p.ack)
		if p.ackTerm == m.term {
			same++
		}
	}
	need := len(m.Voters)/2 + 1
	if m.pair.sole {
		need = 1
	}
	switch {
	case same >= need:
		m.fence = m.term
	case len(asked) < need, m.role != Holder:
		return
	}
	slices.SortFunc(asked, func(a, b clock.Instant) int { return cmp.Compare(b, a) })
	until := asked[need-1].Add(m.Lease)
	if m.now >= until || m.role == Holder && until <= m.until {
		return
	}
	if m.role != Holder {
		m.role, m.since, m.held = Holder, m.now, m.why
		m.heir = heir{}
		m.chosen, m.picked = m.picked && m.held == Planned, false
	}
	m.holder, m.last = m.Self, m.now
	m.until = until
	m.do(Hold{Term: m.fence, Until: until, Reason: m.held})
}

// release gives up the lease: first the address, then the promises.
func (m *Machine) release(why Reason) {
	m.do(Drop{Reason: why})
	m.follow(m.now, "")
	m.promise = promise{}
	m.holder = ""
	m.why = why
	m.sendAll(Msg{Kind: Waive, Term: m.term, Reason: why})
}

// withdraw gives up a candidacy and frees the voters.
func (m *Machine) withdraw() {
	m.follow(m.now, "")
	m.promise = promise{}
	m.sendAll(Msg{Kind: Waive, Term: m.term})
}

// give hands the address over: out of sight first, then the promises.
func (m *Machine) give(to ID, why Reason, chosen bool) {
	m.do(Yield{To: to, Reason: why})
	m.follow(m.now, "")
	m.promise = promise{}
	m.holder = ""
	m.why = why
	m.heir = heir{to, m.Self, m.now.Add(giveBeats * m.Beat), chosen}
	m.next = m.beat()
	m.sendAll(Msg{Kind: Waive, Term: m.term, To: to, Reason: why, Chosen: chosen})
}

// giving reports whether we handed over and the successor has not yet asked.
func (m *Machine) giving() bool { return m.role == Standby && m.heir.from == m.Self }

// takeBack ends a hand-over that the successor did not take.
func (m *Machine) takeBack() {
	if p := m.peer(m.heir.to); p != nil {
		p.avoid = m.now.Add(avoidLeases * m.Lease)
	}
	m.heir = heir{}
	m.follow(m.now, "")
	if !m.barred() {
		m.campaign()
	}
}

// Successor returns who would get the address from a HandOver{To: to} at the latest
// Step, or false if this node does not hold it or that voter (any, if to is "") is not
// heard or not fit. One that is ill, but less than this node is, is fit enough.
func (m *Machine) Successor(to ID) (ID, bool) { return m.successor(to, max(m.ill, Well+1)) }

// LastSuccessor returns who is the least ill of those who could hold at all: for a holder
// that lets go in any case, where there is no Successor.
func (m *Machine) LastSuccessor() (ID, bool) { return m.successor("", Barred) }

// successor returns to, or the best voter, if it is less ill than that.
func (m *Machine) successor(to ID, ill Ill) (ID, bool) {
	if m.role != Holder {
		return "", false
	}
	best := ID("")
	for _, v := range m.Voters {
		p := m.peer(v)
		if p == nil || !m.able(p) || p.info.Ill >= ill {
			continue
		}
		if to == v {
			return v, true
		}
		if to == "" && m.now >= p.avoid {
			best, ill = v, p.info.Ill
		}
	}
	return best, best != ""
}

// able reports whether p is heard and could hold.
func (m *Machine) able(p *peer) bool {
	return p.known && p.info.Ill < Barred && m.now.Sub(p.heard) < m.Lease
}

// steer hands the address to a better node if there is one: when we are ill to one that is
// less so, and with Preempt to one that comes before us and has been fit for long. Our
// own hold counts too: a hand-over that was asked for is not undone at once, and one that
// somebody chose is not undone at all. While paused it does neither.
func (m *Machine) steer() {
	if m.role != Holder || m.paused {
		return
	}
	if m.ill != Well {
		if to, ok := m.Successor(""); ok {
			m.give(to, CheckFailed, false)
		}
		return
	}
	if m.chosen || m.Preempt <= 0 || m.now.Sub(m.since) < m.Preempt {
		return
	}
	if to, ok := m.Successor(""); ok {
		if p := m.peer(to); p.index < m.index() && m.now.Sub(p.fit) >= m.Preempt {
			m.give(to, Preempt, false)
		}
	}
}
