package election

// answer takes in an Ask that may be doubled, late, or of an earlier life of p.
func (m *Machine) answer(p *peer, msg Msg) {
	if msg.Term == p.askTerm && msg.Sent <= p.askSent {
		return // doubled or overtaken by a later one, which is answered
	}
	p.askTerm, p.askSent = msg.Term, msg.Sent
	switch {
	case m.role == Starting, msg.Term <= p.waived:
		m.refuse(p, msg)
	case p.unheard != 0 && !msg.Info.Holds:
		// A promise that it cannot hear is worth nothing to it, and stands in the way of
		// those who hear.
		m.refuse(p, msg)
	default:
		m.decide(p, msg)
	}
}

// decide grants or refuses an Ask. One promise at a time is the whole safety.
func (m *Machine) decide(p *peer, msg Msg) {
	switch {
	case msg.Term < m.granted, m.role == Holder:
		m.refuse(p, msg)
	case msg.Term == m.granted && m.grantee != p.id:
		// While the list of voters changes two may form the same term. The one who comes
		// second must go above it.
		m.seen = max(m.seen, msg.Term+1)
		m.refuse(p, msg)
	case m.role == Candidate:
		if !msg.Info.Holds && !m.outranked(p, msg.Info) {
			m.refuse(p, msg)
			return
		}
		m.withdraw() // a candidate holds nothing yet, so it may give its own promise away
		m.grant(p, msg)
	case m.promised() && m.promise.to != p.id:
		m.pending = pending{p.id, msg, m.now}
		m.refuse(p, msg)
	case m.now < m.heirEnd() && p.id != m.heir.to && p.id != m.heir.from:
		m.refuse(p, msg)
	default:
		m.grant(p, msg)
	}
}

// grant promises p what it asks for, from now on.
func (m *Machine) grant(p *peer, msg Msg) {
	m.granted, m.grantee = msg.Term, p.id
	m.promise = promise{p.id, msg.Term, m.now.Add(m.Lease + m.Guard)}
	if m.giving() || m.heir.to == p.id || msg.Info.Holds {
		m.heir = heir{}
	}
	m.pending = pending{}
	m.pair.deaf = false
	m.follow(m.promise.until, p.id)
	m.send(p.id, Msg{Kind: Grant, Term: msg.Term, Sent: msg.Sent})
}

// refuse tells p the highest term known, so that it can go above, and who has our
// promise, if anyone.
func (m *Machine) refuse(p *peer, msg Msg) {
	r := Msg{Kind: Refuse, Term: m.seen, Sent: msg.Sent}
	if m.promised() {
		r.To = m.promise.to
	}
	m.send(p.id, r)
}

// waived takes in that p needs our promise no longer.
func (m *Machine) waived(p *peer, msg Msg) {
	if msg.Term <= p.waived {
		return
	}
	p.waived = msg.Term
	m.yielded(p)
	if m.holder == p.id {
		m.holder = ""
	}
	freed := m.promise.to == p.id && m.promise.term <= msg.Term
	if freed {
		m.promise = promise{}
	}
	if msg.Reason != "" && m.role != Holder {
		m.why = msg.Reason
		m.picked = msg.Chosen && msg.To == m.Self
	}
	if msg.To != "" && m.role < Holder {
		m.heir = heir{to: msg.To, from: p.id, until: m.now.Add(giveBeats * m.Beat)}
	}
	switch {
	case m.role == Starting && msg.To == m.Self, m.role == Standby && msg.To == m.Self && (m.barred() || m.promised()):
		m.heir = heir{}
		m.send(p.id, Msg{Kind: Refuse, Term: m.seen, To: p.id})
	case m.role == Standby && msg.To == m.Self:
		m.campaign()
	case m.role == Candidate && msg.To == m.Self:
		m.ask()
	case m.role == Standby && freed:
		m.follow(m.now, p.id)
	}
	m.regard()
}

// regard looks again at an ask that came a moment before the promise in its way was
// freed: the messages of two voters are not ordered.
func (m *Machine) regard() {
	p := m.peer(m.pending.from)
	if p == nil || m.role != Standby || m.promised() {
		return
	}
	msg, at := m.pending.msg, m.pending.at
	m.pending = pending{}
	if m.now.Sub(at) <= 2*m.Beat && msg.Term > p.waived && m.now >= p.gone {
		m.decide(p, msg)
	}
}

// outranked reports whether a candidate gives way to p: the named successor goes
// before all, the less ill before the more, then the order of candidates counts.
func (m *Machine) outranked(p *peer, info Info) bool {
	switch {
	case m.now < m.heirEnd() && m.heir.to == p.id:
		return true
	case m.now < m.heirEnd() && m.heir.to == m.Self:
		return false
	case info.Ill != m.ill:
		return info.Ill < m.ill
	}
	return p.index < m.index()
}
