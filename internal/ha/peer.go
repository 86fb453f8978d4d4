package ha

import (
	"errors"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// A peer is another voter as this node knows it.
type peer struct {
	id      election.ID
	heard   clock.Instant // the latest sign of life; 0: none yet
	alive   bool          // heard, and neither silent nor gone since
	why     string        // it is not alive
	hello   hello
	tenures map[string]tenure // by VIP that leads
	seats   map[string]seated // by VIP; what it said last, even if it fell silent since
	longest aDay              // silence between two frames of one life
	path    path
	suspect bool          // it was silent and is not known to be gone
	missAt  clock.Instant // when a near miss was last noted
	miss    time.Duration // and how near it came
	gaps    bool          // the next frame ends a gap of the same life
	foreign clock.Instant // when it last spoke and was not understood; 0: it was
	alien   string        // why not
	newest  uint8         // version of the wire that it speaks; 0: not heard yet
	listed  clock.Instant // since when it has the list of voters that it says it has

	asked    clock.Instant // when it last asked for anything
	beaten   clock.Instant // when it was last sent our hello
	beatAt   clock.Instant // when it must be sent our hello next
	out      frame
	requests [8]uint64 // the latest that were carried out, so that none is twice
	turn     int
	flaps    flaps
}

func (n *Node) newPeer(id election.ID) *peer {
	p := &peer{id: id, why: "never heard", tenures: map[string]tenure{}, seats: map[string]seated{}}
	p.out.version = n.Wire.To(0)
	p.out.send = func(b []byte) { n.Mesh.Send(id, b) }
	return p
}

// able reports whether p could be handed something.
func (p *peer) able() bool { return p.alive && p.hello.State == Up && !p.hello.Witness }

func (n *Node) peer(id election.ID) *peer {
	for _, p := range n.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}

// nameOf returns a voter's name, its address if the name is not known, "" for nobody.
func (n *Node) nameOf(id election.ID) string {
	if id == n.Self {
		return n.Name
	}
	if p := n.peer(id); p != nil && p.hello.Name != "" {
		return p.hello.Name
	}
	return string(id)
}

// greet puts our hello into the frame for p.
func (n *Node) greet(now clock.Instant, p *peer) {
	h := hello{Seq: n.seq, State: n.state, Uptime: n.Uptime(), Name: n.Name, Version: n.Version,
		Config: n.Hash, Voters: fingerprint(n.Voters), Reason: n.reason, Witness: n.Witness, Last: n.wish.last && !n.wish.leaving}
	p.out.add(helloRecord, h.append)
	for _, e := range n.electors {
		if e.vip == nil {
			continue // a guest is never held here
		}
		t := tenure{Seq: n.seq, VIP: e.name, Holds: e.held, Term: e.term, Reason: e.reason, From: e.from, Text: e.text, Fault: e.fault}
		if e.held {
			t.Held, t.Chosen = now.Sub(e.since), e.machine.Chosen()
		}
		p.out.add(tenureRecord, t.append)
	}
	u := n.pulse(now, p)
	p.out.add(pulseRecord, u.append)
	n.seats(now, p)
	for _, m := range n.moves {
		m.remind(p)
	}
	p.beaten = now
	b := clock.Instant(n.Timing.Heartbeat)
	// With the beat of our machines, that is nearest, so that what they ask and the hello go in
	// one frame.
	p.beatAt = (now + b + b/2) / b * b
	if now.Sub(p.asked) < 2*n.Timing.Heartbeat {
		// Its next ask is due in a beat too; let our answer be the hello.
		p.beatAt = now + b + b/8
	}
}

// hear takes in one event of the mesh. What the machines say to it is left to perform.
func (n *Node) hear(now clock.Instant, e MeshEvent) {
	p := n.peer(e.From)
	if p == nil {
		return
	}
	switch e.Kind {
	case Alive:
		if p.suspect {
			n.stats.Refutations++
			p.suspect = false
		}
		// A new life, or the end of a silence: what it said before does not count.
		n.live(p, e.At)
		p.hello.Seq = 0
		clear(p.tenures)
		p.path = path{beat: p.path.beat}
		clear(p.seats)
	case Silent:
		p.suspect = p.alive
		n.lost(p, e.Info)
	case Gone:
		p.suspect = false
		n.stats.Gone++
		clear(p.seats) // and its connections are gone too
		n.lost(p, e.Info)
		for _, el := range n.electors {
			n.stage(now, el, election.Gone{Peer: p.id, At: e.At})
		}
	case Foreign:
		n.strange(p, e)
	case Message:
		if p.gaps && n.asleep == 0 { // else it is we who were silent
			gap := e.At.Sub(p.heard)
			p.longest.add(e.At, gap)
			n.noteGap(p, e.At, gap)
		}
		n.live(p, e.At)
		n.speaks(p, e.Newest)
		p.gaps = true
		if n.asleep != 0 {
			n.asleep = 0
			n.judge(now)
		}
		// A node that went back a release is spoken to in the version of the one before until it
		// was heard: a beat or two. Of what nobody here understands the mesh tells.
		if err := n.read(now, p, e.Msg); err != nil && !errors.Is(err, errVersion) {
			n.stats.BadFrames++
			if n.stats.BadFrames == 1 {
				n.Log.Warn("a frame cannot be read", "node", n.nameOf(p.id), "error", err)
			}
		}
	}
}

// speaks notes the newest version of the wire that a peer speaks. What waits for it in a
// frame is of the version before, which it reads too.
func (n *Node) speaks(p *peer, newest uint8) {
	if newest == p.newest || newest == 0 {
		return
	}
	if version := n.Wire.To(newest); p.newest != 0 || newest != n.Wire.Newest {
		n.Log.Info("version of what nodes send each other", "node", n.nameOf(p.id), "version", version, "its_newest", newest, "ours", n.Wire.String())
	}
	p.newest = newest
	p.out.flush()
	p.out.version = n.Wire.To(newest)
}

// strange notes that a peer lives and cannot be understood.
func (n *Node) strange(p *peer, e MeshEvent) {
	if p.foreign == 0 {
		n.Log.Error("a node cannot be understood: cluster.secret differs, or the name of the cluster, or the releases are too far apart; it is not replaced while it speaks",
			"node", n.nameOf(p.id), "address", p.id, "why", e.Info)
		n.stats.Foreign++
	}
	p.foreign, p.alien = e.At, e.Info
	if !p.alive {
		p.why = e.Info
	}
}

// live notes a sign of life.
func (n *Node) live(p *peer, at clock.Instant) {
	if !p.alive {
		p.alive, p.why, p.foreign = true, "", 0
		n.replace = true
		p.beatAt = 0 // it is owed a hello at once
		n.Log.Info("node heard", "node", n.nameOf(p.id))
		f := Fact{At: at, Kind: FactHeard, Peer: n.nameOf(p.id)}
		if p.heard != 0 {
			f.For = at.Sub(p.heard)
		}
		n.note(f)
		for _, e := range n.electors {
			e.permitted = ""
		}
	}
	p.heard = max(p.heard, at)
	for _, e := range n.electors {
		if e.holder == p.id {
			e.heard = p.heard
		}
	}
}

// lost notes that a peer is not heard any more.
func (n *Node) lost(p *peer, why string) {
	if p.alive {
		n.stats.Suspicions++
		n.Log.Warn("node lost", "node", n.nameOf(p.id), "why", why)
		now := n.Now()
		n.note(Fact{At: now, Kind: FactLost, Peer: n.nameOf(p.id), For: now.Sub(p.heard), Text: why})
	}
	p.alive, p.why = false, why
	for _, t := range p.tenures {
		if t.Holds && p.hello.State != Draining {
			n.flapped(n.Now(), n.nameOf(p.id), &p.flaps)
		}
	}
	clear(p.tenures)
	n.replace = true
}

// read takes in a frame of p.
func (n *Node) read(now clock.Instant, p *peer, b []byte) error {
	return records(b, n.Wire, func(kind recordKind, r *reader) error {
		n.records[kind]++
		switch kind {
		case helloRecord:
			var h hello
			if err := h.read(r); err != nil {
				return err
			}
			n.hello(now, p, h)
		case tenureRecord:
			var t tenure
			if err := t.read(r); err != nil {
				return err
			}
			n.tenure(now, p, t)
		case electionRecord:
			var m ballot
			if err := m.read(r); err != nil {
				return err
			}
			if e := n.guest(now, m.VIP); e != nil && e.name == m.VIP {
				e.polled = now
				if m.Msg.Kind == election.Ask {
					p.asked = now
				}
				n.noteAnswer(now, e, p, m.Msg)
				n.stage(now, e, election.Received{From: p.id, Msg: m.Msg})
			}
		case requestRecord:
			var q request
			if err := q.read(r); err != nil {
				return err
			}
			n.requested(now, p, q)
		case pulseRecord:
			var u pulse
			if err := u.read(r); err != nil {
				return err
			}
			n.pulsed(now, p, u)
		case seatRecord:
			var s seat
			if err := s.read(r); err != nil {
				return err
			}
			n.seat(now, p, s)
		case noteRecord:
			var t note
			if err := t.read(r); err != nil {
				return err
			}
			if e := n.byVIP[t.VIP]; e != nil {
				e.note, e.noteAt = t.Text, now
			}
		}
		return nil
	})
}

// hello takes in what a peer says of itself.
func (n *Node) hello(now clock.Instant, p *peer, h hello) {
	if h.Seq < p.hello.Seq {
		return
	}
	if p.hello.State == Up && h.State == Unfit {
		n.flapped(now, h.Name, &p.flaps)
	}
	other := h.Name != p.hello.Name || h.State != p.hello.State || h.Witness != p.hello.Witness
	if h.Voters != p.hello.Voters {
		p.listed = now
	}
	p.hello = h
	if other {
		n.replace = true
	}
}

// tenure takes in what a peer says of a VIP, and notes when it changed hands.
func (n *Node) tenure(now clock.Instant, p *peer, t tenure) {
	e := n.byVIP[t.VIP]
	if e == nil || e.name != t.VIP || t.Seq < p.tenures[t.VIP].Seq {
		return
	}
	if t.Holds != p.tenures[t.VIP].Holds || t.Chosen != p.tenures[t.VIP].Chosen {
		n.replace = true
	}
	p.tenures[t.VIP] = t
	if !t.Holds {
		return
	}
	if e.holder != p.id && !e.held {
		known := e.holder != ""
		if e.holder == n.Self {
			// What was heard of whoever held before us is of no concern. Who slept through the end
			// of its lease reads old news, and cannot tell when they were sent.
			e.heard = e.until
			if now.Sub(n.knows) < n.Timing.Lease+n.Timing.Guard {
				e.heard = 0
			}
		}
		e.holder = p.id
		if known {
			e.tookFromTheDead(now.Add(-t.Held), t.Reason)
		}
		if known || t.Held < time.Minute {
			at := now.Add(-t.Held)
			n.changed(Change{At: at, Heard: e.heard, Trail: n.evidence(e, at, now), VIP: e.name, From: t.From, To: p.hello.Name, Term: t.Term, Reason: t.Reason, Text: t.Text,
				Time: time.Now().Add(-t.Held)})
		}
	}
	if e.holder == p.id {
		e.heard = p.heard
	}
}
