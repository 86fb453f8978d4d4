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

// Recall makes m go on where the machine stopped whose Memory it is, of the same voters. It
// does without the quiet start, since nothing that was promised is forgotten.
func (m *Machine) Recall(text json.RawMessage) error {
	var order []ID
	f := m.fields()
	f["voters"] = &order
	if err := memory.Read(text, memoryVersion, f); err != nil {
		return err
	}
	m.reorder(order)
	return nil
}
