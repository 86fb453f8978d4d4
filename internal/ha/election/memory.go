package election

import (
	"encoding/json"

	"proxyd/internal/memory"
)

// memoryVersion is that of what fields names.
const memoryVersion = 1

// fields is what the machine knows and has promised, by names that are for ever.
func (m *Machine) fields() memory.Fields {
	peers := memory.Fields{}
	for i := range m.peers {
		peers[string(m.peers[i].id)] = m.peers[i].fields()
	}
	return memory.Fields{
		"now": &m.now, "born": &m.born,
		"role": &m.role, "ill": &m.ill, "deaf": &m.deaf, "paused": &m.paused,
		"term": &m.term, "first": &m.first, "fence": &m.fence, "seen": &m.seen, "granted": &m.granted, "grantee": &m.grantee,
		"promise": memory.Fields{"to": &m.promise.to, "term": &m.promise.term, "until": &m.promise.until},
		"heir":    memory.Fields{"to": &m.heir.to, "from": &m.heir.from, "until": &m.heir.until, "chosen": &m.heir.chosen},
		"pending": memory.Fields{"from": &m.pending.from, "msg": &m.pending.msg, "at": &m.pending.at},
		"asked":   &m.asked, "next": &m.next, "quit": &m.quit, "open": &m.open, "after": &m.after,
		"until": &m.until, "since": &m.since, "why": &m.why, "held": &m.held,
		"picked": &m.picked, "chosen": &m.chosen,
		"holder": &m.holder, "last": &m.last,
		"peers": peers,
		"pair": memory.Fields{
			"sole": &m.pair.sole, "ends": &m.pair.ends, "deaf": &m.pair.deaf, "rival": &m.pair.rival, "unheard": &m.pair.unheard,
			"round": &m.pair.round, "keep": &m.pair.keep, "waiting": &m.pair.waiting, "granted": &m.pair.granted, "wanted": &m.pair.wanted,
		},
	}
}

// fields is what is known of a peer.
func (p *peer) fields() memory.Fields {
	return memory.Fields{
		"known": &p.known, "heard": &p.heard, "info": &p.info, "fit": &p.fit, "avoid": &p.avoid, "gone": &p.gone,
		"said_from": &p.saidFrom, "said_last": &p.saidLast, "unheard": &p.unheard,
		"ask_term": &p.askTerm, "ask_sent": &p.askSent, "waived": &p.waived,
		"acked": &p.acked, "ack": &p.ack, "ack_term": &p.ackTerm,
	}
}

// Memory returns what the machine knows and has promised, for a machine of the same voter in
// another process. This one must not Step again then, or one voter has two minds.
func (m *Machine) Memory() (json.RawMessage, error) {
	order := m.Voters
	f := m.fields()
	f["voters"] = &order
	return memory.Write(memoryVersion, f)
}

// Recall makes m go on where the machine stopped whose Memory it is. It does without the quiet
// start, since nothing that was promised is forgotten.
//
// The list of voters may be another one, which differs by a single voter (of a pair the lost
// half may be another), if every lease that was won under the list before that one is over.
func (m *Machine) Recall(text json.RawMessage) error {
	var order []ID
	f := m.fields()
	f["voters"] = &order
	if err := memory.Read(text, memoryVersion, f); err != nil {
		return err
	}
	if len(order) > 0 && !sameVoters(order, m.Voters) {
		m.revoted(len(order))
		return nil
	}
	m.reorder(order)
	return nil
}

// revoted goes on under another list of voters, after one of so many. What this voter promised
// stays promised, to one who is no voter any more too, and a lease that was won stays won: any
// majority of the old list and any of the new one have a voter in common. Only what a pair may
// do alone is no matter of majorities.
func (m *Machine) revoted(before int) {
	alone := m.pair.sole
	switch {
	case len(m.Voters) != 2 || before != 2:
		m.pair = pair{deaf: m.pair.deaf}
	default: // another half: what was asked about the lost one says nothing of it
		m.pair.waiting, m.pair.granted, m.pair.rival, m.pair.unheard = false, false, false, 0
	}
	if alone && len(m.Voters) > 2 {
		m.until = 0 // the first Step lets go: of three or more nobody holds alone
	}
	if m.heir.to != m.Self && m.peer(m.heir.to) == nil {
		if m.giving() {
			m.heir.until = m.now // it will not take the address: the first Step takes it back
		} else {
			m.heir = heir{}
		}
	}
}
