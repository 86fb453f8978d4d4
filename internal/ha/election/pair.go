package election

import "proxyd/internal/clock"

// pair is what only two voters need. Their majority is both, so one that is left alone
// needs another right to hold: the other's process is gone, or has just started, or is
// silent and the network was asked (a permit).
type pair struct {
	sole    bool          // candidate or holder by such a right; ends with a promise of the other
	ends    clock.Instant // of a sole right: when it lapses unless a permit to keep prolongs it
	deaf    bool          // was deaf during the silence
	rival   bool          // the other was heard to hold while we did
	unheard clock.Instant // since when the other says that it does not hear us; 0 if it does

	round   uint64 // of the latest WantPermit
	keep    bool
	waiting bool // for its answer
	granted bool // its answer was yes
	wanted  clock.Instant
}

// other returns the other voter of a pair, or nil if there are not two.
func (m *Machine) other() *peer {
	if len(m.Voters) != 2 || len(m.peers) != 1 {
		return nil
	}
	return &m.peers[0]
}

// soleLeases is for how many leases a right to hold alone is good. It is renewed once a
// lease: a holder that is cut off itself after it was left alone must let go too.
const soleLeases = 3

// silence returns since when nothing has been heard of the other. One that does not hear
// us is as good as silent while it holds nothing: what we promised it, it has not heard
// for so long that no lease can come of it, and what we ask it will not hear.
func (m *Machine) silence() clock.Instant {
	p := m.other()
	switch {
	case m.shut(p):
		return max(p.unheard.Add(-m.Lease), m.born)
	case p.known:
		return max(p.heard, m.born)
	}
	return m.born
}

// shut reports whether p says that it holds nothing and does not hear us.
func (m *Machine) shut(p *peer) bool { return p.unheard != 0 && !p.info.Holds }

// wantAt is when a permit should be asked for: two beats before it will be needed, and
// once a lease by a holder that is alone.
func (m *Machine) wantAt() clock.Instant {
	var at clock.Instant
	if m.pair.sole {
		return m.pair.wanted.Add(m.Lease)
	}
	if m.role == Holder {
		at = m.until.Add(-2 * m.Beat)
	} else {
		at = m.silence().Add(m.Lease + m.Guard - 2*m.Beat)
	}
	if m.pair.round > 0 && m.pair.wanted >= m.silence() && m.pair.keep == (m.role == Holder) {
		at = max(at, m.pair.wanted.Add(m.Lease)) // asked in this silence: not at once again
	}
	return at
}

// soleAt is when a permit lets us claim: the other's lease is over by then, and it has
// had two beats to answer what we ask.
func (m *Machine) soleAt() clock.Instant {
	return max(m.silence().Add(m.Lease+m.Guard), m.pair.wanted.Add(2*m.Beat))
}

// seeks reports whether a permit is of use at all now.
func (m *Machine) seeks() bool {
	return m.other() != nil && (!m.pair.sole || m.role == Holder) && !m.barred() && !m.giving()
}

func (m *Machine) pairDeadline() (clock.Instant, bool) {
	switch {
	case !m.seeks():
		return 0, false
	case m.pair.sole:
		return min(m.wantAt(), m.pair.ends), true
	case m.pair.granted && m.role != Holder:
		return max(m.soleAt(), m.open), true
	}
	return m.wantAt(), true
}

// pairDue asks for a permit when it is time, and uses the one it has.
func (m *Machine) pairDue() {
	if !m.seeks() {
		return
	}
	q := &m.pair
	if q.sole && m.now >= q.ends {
		m.release(Isolated)
		return
	}
	if q.granted && !q.keep && m.now >= m.soleAt() && m.role != Holder && m.role != Starting && !(m.promised() && m.promise.to != m.Self) {
		q.granted = false
		m.claimAlone()
		return
	}
	if !q.granted && m.now >= m.wantAt() {
		q.round++
		q.keep, q.waiting, q.wanted = m.role == Holder, true, m.now
		since := m.now
		if q.sole {
			since = since.Add(-m.Lease)
		}
		m.do(WantPermit{Peer: m.other().id, Round: q.round, Keep: q.keep, Since: since})
	}
}

// permit takes in the answer to WantPermit. What was heard since has ended its round.
func (m *Machine) permit(ev Permit) {
	q := &m.pair
	if !q.waiting || ev.Round != q.round || m.other() == nil {
		return
	}
	q.waiting = false
	switch {
	case q.sole && ev.Ok:
		q.ends = q.wanted.Add(soleLeases * m.Lease)
	case q.sole:
		m.release(Isolated)
	case !ev.Ok:
	case q.keep && m.role == Holder:
		m.alone()
		m.ask()
	case !q.keep:
		q.granted = true // pairDue uses it when the silence has lasted long enough
	}
}

// alone begins a right to hold without the other's promise.
func (m *Machine) alone() {
	q := &m.pair
	q.sole, q.waiting, q.granted = true, false, false
	q.wanted, q.ends = m.now, m.now.Add(soleLeases*m.Lease)
}

// together ends it.
func (m *Machine) together() { m.pair.sole, m.pair.waiting = false, false }

// claimAlone claims by a right other than the other's promise.
func (m *Machine) claimAlone() {
	if m.holder != "" && m.holder != m.Self {
		m.why = NodeDead
	}
	m.alone()
	switch {
	case m.role != Candidate:
		m.campaign()
	case m.asked == m.now:
		m.count() // has asked in this very step
	default:
		m.ask()
	}
}

// pairLost lets the survivor of a pair hold alone at once: no life of the other can
// hold before a quiet start, which has hardly begun.
func (m *Machine) pairLost() {
	if m.other() == nil || m.barred() || m.role == Starting || m.pair.sole {
		return
	}
	if m.role == Holder {
		m.alone()
		m.ask()
	} else if !m.promised() || m.promise.to == m.Self {
		m.claimAlone()
	}
}

// pairRefused lets one of a pair hold alone while the other has just started: that one
// holds nothing, and what it promised in an earlier life it promised to us.
func (m *Machine) pairRefused(msg Msg) {
	if m.other() != nil && msg.Info.Quiet && m.recent(msg) && !m.pair.sole {
		m.alone()
		m.ask()
	}
}

// met notes that something was heard of the other, before it is taken in: a permit for
// its silence is void. What a sole holder asks is whether it is cut off itself, and its
// answer counts whoever was heard.
func (m *Machine) met(p *peer, info Info) {
	if m.other() == nil {
		return
	}
	q := &m.pair
	if !q.sole && (info.Hears || info.Holds || p.unheard == 0) {
		q.waiting, q.granted = false, false
	}
	if info.Hears || m.now.Sub(p.heard) > m.Lease {
		q.unheard = 0
	}
	if !info.Hears && q.unheard == 0 {
		q.unheard = m.now
	}
}

// meet settles who stays when both of a pair hold, after a cut. A rival that does not
// hear us cannot be moved, so after two beats of that it is we who go. Until then we
// stay in any case: it would not learn that we went, and who should announce the
// address again would not know that it is due.
func (m *Machine) meet(p *peer) {
	if m.other() == nil || m.role != Holder || !p.info.Holds {
		return
	}
	q := &m.pair
	q.rival = true
	if q.unheard != 0 && m.now.Sub(q.unheard) < 2*m.Beat || q.unheard == 0 && m.stays(p) {
		return
	}
	m.do(Drop{Reason: Conflict})
	m.holder, m.last = p.id, m.now
	m.why = Conflict
	m.promise = promise{}
	m.follow(m.holderEnd(), p.id)
	q.rival = false
	m.send(p.id, Msg{Kind: Waive, Term: m.term, To: p.id, Reason: Conflict})
}

// stays reports whether of two holders we are the one to stay. The other computes it
// too, at another moment, so a hold is longer only by more than a margin, and by a
// wider one for the worse candidate: they may both think that they lose, never for
// long that they both win.
func (m *Machine) stays(p *peer) bool {
	longer := m.now.Sub(m.since) - p.info.Held
	switch {
	case m.ill != p.info.Ill:
		return m.ill < p.info.Ill
	case m.pair.deaf != p.info.Deaf:
		return p.info.Deaf
	case m.index() < p.index:
		return longer >= -m.Lease
	}
	return longer > m.Lease+2*m.Beat
}

// reunited ends holding alone: the other promises again.
func (m *Machine) reunited(p *peer) {
	if m.other() == nil {
		return
	}
	m.together()
	m.pair.deaf = false
	m.yielded(p)
}

// yielded asks for a full announcement once a rival has let go.
func (m *Machine) yielded(p *peer) {
	if m.pair.rival && m.role == Holder && p == m.other() {
		m.pair.rival = false
		m.do(Announce{})
	}
}
