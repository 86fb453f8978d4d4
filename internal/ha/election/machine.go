// Package election decides which node may hold a virtual address.
//
// It is a lease protocol in one rule: a voter keeps one promise at a time. A node
// that has promises from a majority holds the lease until the oldest of them can
// lapse. The holder counts its lease from the moment it asked, a voter counts its
// promise from the later moment it heard, so the holder always lets go first.
//
// A Machine does no I/O and reads no clock. Feed it events, do what it says.
// docs/ELECTION.md has the argument why it is safe.
package election

import (
	"slices"
	"time"

	"proxyd/internal/clock"
)

// Role is what a node is in the election of one address.
type Role uint8

const (
	Starting  Role = iota // quiet: may have promised in an earlier life
	Standby               // follows a holder, or waits for its turn
	Candidate             // asks for promises
	Holder                // has them
)

// String returns the role's name in lower case.
func (r Role) String() string {
	return [...]string{"starting", "standby", "candidate", "holder"}[r]
}

// Machine is one node's part in the election of one address. Make one with New. It is
// not safe for concurrent use.
type Machine struct {
	Config
	now  clock.Instant // of the latest Step
	born clock.Instant
	acts []Action

	role   Role
	ill    Ill
	deaf   bool
	paused bool

	term    uint64 // that we ask under, as a candidate or to renew a lease
	first   uint64 // the term with which this candidacy began; term may rise above it
	fence   uint64 // of the lease held: the latest term that a majority promised
	seen    uint64 // highest known to anyone we heard
	granted uint64 // highest promised, to ourselves too
	grantee ID     // to whom; "" if an earlier life promised it
	promise promise
	heir    heir
	pending pending

	asked clock.Instant // when we last asked
	next  clock.Instant // next round, or next turn of giving
	quit  clock.Instant // end of a candidacy that has led to nothing
	open  clock.Instant // from when no promise that we know of stands in our way
	after ID            // whose promise ended at open: it is not waited for
	until clock.Instant // end of the lease held
	since clock.Instant // begin of the unbroken hold
	why   Reason        // why the address changes hands, if we get it
	held  Reason        // why we got it

	picked bool // the waive that made us the successor was of somebody's choice
	chosen bool // what we hold is ours by choice

	holder ID            // who holds, as far as we heard
	last   clock.Instant // when we heard that

	peers []peer
	pair  pair
}

// promise is the one that this voter keeps.
type promise struct {
	to    ID
	term  uint64
	until clock.Instant
}

// heir is the successor that a holder named. Until the instant nobody else but the old
// holder is promised anything; that is manners, not safety.
type heir struct {
	to, from ID
	until    clock.Instant
	chosen   bool
}

// pending is an ask that was refused because of a promise to another, kept for the case
// that the promise is waived a moment later.
type pending struct {
	from ID
	msg  Msg
	at   clock.Instant
}

// peer is what is known of another voter.
type peer struct {
	id    ID
	index int           // place in the order of candidates
	known bool          // heard at least once
	heard clock.Instant // latest message
	info  Info          // of the latest message
	fit   clock.Instant // since when fit without a break; valid if it is well
	avoid clock.Instant // until when nothing is handed over to it
	gone  clock.Instant // until when what it says comes from a dead process

	saidFrom clock.Instant // since when we speak to it without a pause
	saidLast clock.Instant // our latest message to it
	unheard  clock.Instant // since when it says that it does not hear us, though we speak; 0 if it does

	askTerm uint64 // its latest Ask
	askSent clock.Instant
	waived  uint64 // it needs no promise of this term or a lower one
	acked   bool   // ack is valid: it promised in this candidacy or hold
	ack     clock.Instant
	ackTerm uint64 // what it promised then
}

// New returns a Machine that, if c.Quiet, stays quiet for as long as a promise made
// before a crash could still bind it. A node is fit and hears until it is told otherwise.
func New(now clock.Instant, c Config) *Machine {
	m := &Machine{Config: c, now: now, born: now, open: now, why: Start, seen: c.Term, granted: c.Term}
	for i, v := range c.Voters {
		if v != c.Self {
			m.peers = append(m.peers, peer{id: v, index: i})
		}
	}
	if m.Quiet && len(m.peers) > 0 {
		m.open = now.Add(c.Lease + c.Guard)
	} else {
		m.role = Standby
	}
	return m
}

// Step takes in one event and returns what to do about it, in order. Instants must
// not go backwards.
func (m *Machine) Step(now clock.Instant, ev Event) []Action {
	m.now = max(m.now, now)
	m.lapse()
	switch ev := ev.(type) {
	case Received:
		if p := m.peer(ev.From); p != nil {
			m.receive(p, ev.Msg)
		}
	case Fitness:
		m.ill = min(ev.Ill, Barred-1)
	case Gone:
		if p := m.peer(ev.Peer); p != nil {
			m.lost(p, ev.At)
		}
	case Permit:
		m.permit(ev)
	case HandOver:
		to, ok := m.Successor(ev.To)
		if !ok && ev.Last {
			to, ok = m.LastSuccessor()
		}
		if ok {
			m.give(to, Planned, ev.Chosen)
		}
	case Deaf:
		m.deafen(ev.Deaf)
	case Pause:
		m.paused = ev.On
	case Order:
		m.reorder(ev.Voters)
	case Wish:
		m.wish(ev)
	}
	m.due()
	acts := m.acts
	m.acts = nil
	return acts
}

// Deadline returns when the Machine next wants a Tick.
func (m *Machine) Deadline() clock.Instant {
	d := m.next
	switch m.role {
	case Starting:
		d = m.open
	case Standby:
		switch {
		case m.giving():
			d = min(m.next, m.heir.until)
		case m.barred():
			d = m.now.Add(m.Lease) // nothing to do: any instant will do
		default:
			d = m.turn()
		}
	case Candidate:
		d = min(m.next, m.quit)
	case Holder:
		d = min(m.next, m.until)
	}
	if at, ok := m.pairDeadline(); ok {
		d = min(d, at)
	}
	return max(d, m.now+1)
}

// lapse lets go of a lease that has run out, whatever event comes first.
func (m *Machine) lapse() {
	if m.role == Holder && m.now >= m.until {
		m.release(Isolated)
	}
}

// due does what the time has come for.
func (m *Machine) due() {
	switch m.role {
	case Starting:
		if m.now >= m.open {
			m.role = Standby
			m.follow(m.holderEnd(), m.holder)
		}
	case Standby:
		switch {
		case m.giving() && m.now >= m.heir.until:
			m.takeBack()
		case m.giving():
			if m.now >= m.next {
				m.next = m.beat()
				m.send(m.heir.to, Msg{Kind: Waive, Term: m.term, To: m.heir.to, Reason: m.why, Chosen: m.heir.chosen})
			}
		case !m.barred() && m.now >= m.turn():
			m.campaign()
		}
	case Candidate:
		switch {
		case m.now >= m.quit: // outnumbered, or alone: let others try for a while
			m.withdraw()
			m.follow(m.now.Add(2*m.Beat*time.Duration(m.place()+1)), "")
		case m.now >= m.next:
			m.ask()
		}
	}
	if m.role == Holder && m.now >= m.next {
		m.ask()
	}
	m.steer()
	m.pairDue()
}

// receive takes in a message of another voter.
func (m *Machine) receive(p *peer, msg Msg) {
	if m.now < p.gone && !msg.Info.Quiet {
		return // sent before it died
	}
	fresh := m.hear(p, msg)
	if fresh {
		m.meet(p)
	}
	switch msg.Kind {
	case Ask:
		m.answer(p, msg)
	case Grant:
		m.granting(p, msg)
	case Refuse:
		m.refused(p, msg)
	case Waive:
		m.waived(p, msg)
	}
}

// hear notes what a message tells of its sender, and reports whether it is known to be
// of late: an Ask after the latest one, or an answer to what we lately asked.
func (m *Machine) hear(p *peer, msg Msg) bool {
	fresh := msg.Kind == Ask && msg.Term > p.waived && (msg.Term > p.askTerm || msg.Sent > p.askSent) ||
		(msg.Kind == Grant || msg.Kind == Refuse) && m.role >= Candidate && m.recent(msg)
	m.met(p, msg.Info)
	if msg.Info.Ill == Well && (!p.known || p.info.Ill != Well || m.now.Sub(p.heard) > m.Lease) {
		p.fit = m.now
	}
	p.known, p.heard, p.info = true, m.now, msg.Info
	p.gone = 0
	m.echo(p, fresh)
	m.seen = max(m.seen, msg.Term)
	if fresh && msg.Info.Holds {
		m.holder, m.last = p.id, m.now
		if m.role < Candidate {
			m.why = NodeDead // what we shall say if its lease lapses
		}
	}
	return fresh
}

// recent reports whether an answer is one to what we asked within the last lease. One to an ask
// of our future was asked before this host started anew, when its clock was another.
func (m *Machine) recent(msg Msg) bool { return msg.Sent <= m.asked && msg.Sent.Add(m.Lease) > m.now }

// echo notes whether p, by what it says, hears us. It says so of the last few beats, and
// may well have been told nothing in them: only who was spoken to all the time is deaf.
func (m *Machine) echo(p *peer, fresh bool) {
	switch {
	case p.info.Hears:
		p.unheard = 0
	case p.unheard == 0 && fresh && m.now.Sub(p.saidFrom) >= m.earshot() && m.now.Sub(p.saidLast) <= 2*m.Beat:
		p.unheard = m.now
	}
}

// earshot is for how long after a word of another voter we say that we hear it: a lease
// that is not renewed by then will hardly be.
func (m *Machine) earshot() time.Duration { return m.Lease - 2*m.Beat }

// follow waits until nothing stands in the way any more, then for our turn. Nobody
// waits for the voter after.
func (m *Machine) follow(open clock.Instant, after ID) {
	m.role = Standby
	m.open, m.after = max(m.now, open), after
	m.together()
}

// turn is when a Standby begins to ask for itself.
func (m *Machine) turn() clock.Instant {
	at := max(m.open, m.heirEnd()).Add(m.Beat * time.Duration(m.place()))
	if m.promised() && m.promise.to != m.Self {
		at = max(at, m.promise.until)
	}
	return at
}

// place is how many beats this candidate leaves to better ones: one for each voter
// before it that may still live, and as many as there are voters if it is unfit, for
// then it claims only because nobody else does.
func (m *Machine) place() int {
	n := 0
	for i := range m.peers {
		p := &m.peers[i]
		if p.index < m.index() && p.id != m.after && m.now >= p.gone {
			n++
		}
	}
	if m.ill != Well {
		n += len(m.Voters)
	}
	return n
}

// lost frees what was promised to a voter whose process is gone. What that voter had
// promised stays promised: its next life is quiet for as long as that binds it.
func (m *Machine) lost(p *peer, at clock.Instant) {
	if at == 0 {
		at = m.now
	}
	end := at.Add(m.Lease)
	if m.now >= end {
		return // it may have a new life by now, and that one may hold
	}
	p.gone = end
	p.info = Info{Ill: Barred}
	was := m.holder == p.id
	if was {
		m.holder, m.why = "", NodeDead
	}
	if m.promise.to == p.id {
		m.promise = promise{}
	}
	if m.heir.to == p.id && m.giving() {
		m.takeBack()
	} else if m.role == Standby && (was || m.after == p.id) {
		m.follow(m.now, p.id)
	}
	m.regard()
	m.pairLost()
}

// wish takes in another Preempt, and whether this node may hold at all.
func (m *Machine) wish(w Wish) {
	m.Preempt = w.Preempt
	if w.Witness == m.Witness {
		return
	}
	m.Witness = w.Witness
	switch {
	case m.Witness && m.role == Candidate:
		m.withdraw()
	case m.Witness && m.role == Holder:
		m.release(Planned)
	case m.role == Standby:
		m.follow(m.holderEnd(), m.holder)
	}
}

// deafen notes whether the node hears anything on the address's network.
func (m *Machine) deafen(deaf bool) {
	m.deaf = deaf
	if !deaf {
		return
	}
	m.pair.deaf = true
	switch m.role {
	case Candidate:
		m.withdraw()
	case Holder:
		m.release(Isolated)
	}
}

// reorder takes in another order of the same candidates. What was promised stays.
func (m *Machine) reorder(order []ID) {
	if !sameVoters(order, m.Voters) {
		return
	}
	m.Voters = slices.Clone(order)
	for i := range m.peers {
		m.peers[i].index = slices.Index(m.Voters, m.peers[i].id)
	}
	slices.SortFunc(m.peers, func(a, b peer) int { return a.index - b.index })
}

// sameVoters reports whether two lists have the same voters, in whatever order.
func sameVoters(a, b []ID) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// barred reports whether this node must not hold at all.
func (m *Machine) barred() bool { return m.deaf || m.Witness }

// index is our place in the order of candidates.
func (m *Machine) index() int { return slices.Index(m.Voters, m.Self) }

func (m *Machine) peer(id ID) *peer {
	for i := range m.peers {
		if m.peers[i].id == id {
			return &m.peers[i]
		}
	}
	return nil
}

func (m *Machine) promised() bool { return m.promise.to != "" && m.now < m.promise.until }

// holderEnd is when the lease of the holder we heard of is over for certain.
func (m *Machine) holderEnd() clock.Instant {
	if m.holder == "" {
		return 0
	}
	return m.last.Add(m.Lease + m.Guard)
}

func (m *Machine) heirEnd() clock.Instant {
	if m.heir.to == "" {
		return 0
	}
	return m.heir.until
}

// beat is the next beat. All machines of a node beat at the same instants, so that one
// packet can carry what they say.
func (m *Machine) beat() clock.Instant {
	b := clock.Instant(m.Beat)
	return (m.now/b + 1) * b
}

func (m *Machine) do(a Action) { m.acts = append(m.acts, a) }

// send says msg to one voter, with what there is to know of us.
func (m *Machine) send(to ID, msg Msg) {
	p := m.peer(to)
	if p == nil {
		return
	}
	msg.Info = Info{
		Holds:  m.role == Holder,
		Ill:    m.ill,
		Quiet:  m.role == Starting,
		Deaf:   m.pair.deaf,
		Hears:  p.known && m.now.Sub(p.heard) < m.earshot(),
		Prefer: uint8(min(m.index(), 255)),
	}
	if m.barred() || m.role == Starting {
		msg.Info.Ill = Barred
	}
	if m.role == Holder {
		msg.Info.Held = m.now.Sub(m.since)
	}
	if m.now.Sub(p.saidLast) > 2*m.Beat {
		p.saidFrom = m.now
	}
	p.saidLast = m.now
	m.do(Send{To: to, Msg: msg})
}

func (m *Machine) sendAll(msg Msg) {
	for i := range m.peers {
		m.send(m.peers[i].id, msg)
	}
}
