package ha

import (
	"fmt"
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/detect"
	"proxyd/internal/ha/election"
)

// A Fact is one thing that the loop met and that explains what the election did.
type Fact struct {
	At   clock.Instant
	Kind FactKind
	VIP  string // "" if it is about the node, or about another node as a whole
	Peer string // the other node that it is about, by name
	Term uint64 // the highest known then
	For  time.Duration
	Text string
}

// FactKind is what a Fact is about.
type FactKind string

const (
	FactHeard     FactKind = "heard"     // Peer was heard for the first time, or after a silence; For is how long that was
	FactLost      FactKind = "lost"      // Peer is silent or gone; For is since when
	FactNearMiss  FactKind = "near_miss" // Peer was silent for more than half of what is borne
	FactStall     FactKind = "stall"     // this node itself was asleep, For so long
	FactAsk       FactKind = "ask"       // the network is asked whether this node may hold alone
	FactPermit    FactKind = "permit"    // what came out, if it is not what came out before
	FactLapsed    FactKind = "lapsed"    // what was promised to Peer, the holder, is over for certain
	FactClaim     FactKind = "claim"     // this node began to ask for the lease
	FactGranted   FactKind = "granted"   // Peer promised it
	FactRefused   FactKind = "refused"   // Peer did not
	FactTake      FactKind = "take"      // this node has the lease, and takes the address
	FactAnnounced FactKind = "announced" // it was taken and announced for the first time
	FactYield     FactKind = "yield"     // the address goes on accepting in silence; Peer takes it over
	FactRelease   FactKind = "release"   // the address was let go
	FactFault     FactKind = "fault"     // this node could not hold it
	FactAsked     FactKind = "asked"     // Peer, or an operator on this node, asked for a hand-over
	FactFitness   FactKind = "fitness"   // what this node can do changed
	FactConfig    FactKind = "config"    // another configuration is in force here
)

// step reports whether k matters only as evidence of a change: such facts come with
// Change.Trail, and not by OnFact.
func (k FactKind) step() bool {
	switch k {
	case FactAsk, FactLapsed, FactClaim, FactGranted, FactRefused, FactTake, FactAnnounced:
		return true
	}
	return false
}

const (
	// maxTrail is how many of the latest facts are kept as evidence, and trailOfVIP how many
	// more for each VIP: they may all change hands at once.
	maxTrail   = 128
	trailOfVIP = 8
	// trailTime is how far back the evidence of a change goes at the most.
	trailTime = time.Minute
	// trailLead is how much before the change itself it begins at least.
	trailLead = 2 * time.Second
)

// note keeps a fact as evidence, and tells it to whoever writes the history.
func (n *Node) note(f Fact) {
	if f.At == 0 {
		f.At = n.Now()
	}
	if room := maxTrail + trailOfVIP*len(n.electors); len(n.trail) >= room {
		n.trail = slices.Delete(n.trail, 0, len(n.trail)-room*3/4)
	}
	n.trail = append(n.trail, f)
	if n.OnFact != nil && !f.Kind.step() {
		n.OnFact(f)
	}
}

// evidence returns what was met of a VIP since the instant, or a little before now if that
// is earlier.
func (n *Node) evidence(e *elector, since, now clock.Instant) []Fact {
	since = max(min(since, now.Add(-trailLead)), now.Add(-trailTime))
	var out []Fact
	for _, f := range n.trail {
		if f.At >= since && (f.VIP == "" || f.VIP == e.name) {
			out = append(out, f)
		}
	}
	return out
}

// noteRole notes that a machine began to ask for the lease.
func (n *Node) noteRole(now clock.Instant, e *elector) {
	role := e.machine.Role()
	was := e.role
	e.role = role
	if role < election.Candidate || was >= election.Candidate {
		return
	}
	v := e.machine.View()
	for _, p := range v.Peers {
		// The machine counts from the last word about the lease, not from any sign of life.
		if dead := p.Heard.Add(n.Timing.Lease + n.Timing.Guard); p.ID == e.holder && p.Heard != 0 && now >= dead {
			n.note(Fact{At: dead, Kind: FactLapsed, VIP: e.name, Peer: n.nameOf(p.ID),
				Text: fmt.Sprintf("lease %d ms and guard %d ms", n.Timing.Lease.Milliseconds(), n.Timing.Guard.Milliseconds())})
		}
	}
	n.note(Fact{At: now, Kind: FactClaim, VIP: e.name, Term: v.Term})
}

// noteAnswer notes what a voter said to a candidacy.
func (n *Node) noteAnswer(now clock.Instant, e *elector, p *peer, m election.Msg) {
	if e.machine.Role() != election.Candidate {
		return
	}
	f := Fact{At: now, VIP: e.name, Peer: n.nameOf(p.id), Term: m.Term}
	switch m.Kind {
	case election.Grant:
		f.Kind = FactGranted
	case election.Refuse:
		f.Kind = FactRefused
		if m.To != "" {
			f.Text = "it has promised " + n.nameOf(m.To)
		}
	default:
		return
	}
	n.note(f)
}

// noteGap notes a silence that came near to what is borne. Of one that lasts, or comes
// again and again, only the worst are worth an entry.
func (n *Node) noteGap(p *peer, at clock.Instant, gap time.Duration) {
	limit := detect.Limit(n.Timing.Heartbeat)
	if gap > limit/2 {
		n.stats.NearMisses++
	}
	if gap <= limit/2 || p.missAt != 0 && at.Sub(p.missAt) < time.Minute && gap < p.miss+p.miss/4 {
		return
	}
	p.missAt, p.miss = at, gap
	n.note(Fact{At: at, Kind: FactNearMiss, Peer: n.nameOf(p.id), For: gap,
		Text: fmt.Sprintf("%d of %d ms that are borne", gap.Milliseconds(), limit.Milliseconds())})
}

// notePermit notes what came of asking the network, where that differs from the time before.
func (n *Node) notePermit(now clock.Instant, a permit, ok bool) {
	e := a.elector
	f := Fact{At: now, Kind: FactPermit, VIP: e.name, Peer: n.nameOf(a.peer.id), Term: e.machine.View().Term}
	switch {
	case a.err != nil:
		f.Text = "refused: the network of the address cannot be asked: " + a.err.Error()
	case !a.heard:
		f.Text = "refused: nothing at all is heard on the network of the address"
	case a.answered && a.peer.foreign != 0:
		f.Text = "refused: the other node lives and is not understood: " + a.peer.alien
	case a.answered:
		f.Text = "refused: the other node's process answers; only the heartbeat's path is broken"
	case !a.reached:
		f.Text = "refused: no arbiter answers; this node may be the one that is cut off"
	case ok && a.keep:
		f.Text = "granted, to go on: the network of the address is heard"
	case ok && a.taken:
		f.Text = "granted: the network is heard; the other node's kernel answers for the address and its process does not: frozen or dead"
	case ok:
		f.Text = "granted: the network is heard, and nobody answers there for the address or for the other node's process"
	default:
		f.Text = "refused"
	}
	if a.peer.heard > a.asked || e.permitted == f.Text {
		// It was heard meanwhile, so nothing hangs on the answer; or it is the same again.
		return
	}
	e.permitted = f.Text
	n.note(f)
}

// noteFitness notes what this node can do from now on.
func (n *Node) noteFitness(state State, reason string) {
	text := state.String()
	if reason != "" {
		text += ": " + reason
	}
	n.note(Fact{Kind: FactFitness, Text: text})
}

// unheld counts the time in which nobody was known to hold e, from the holder's last sign
// of life on.
type unheld struct {
	total time.Duration
	since clock.Instant // 0: somebody holds
}

// watchUnheld follows whether somebody holds e. A node that has just started cannot know
// that nobody does before it had the time to hear a holder.
func (n *Node) watchUnheld(now clock.Instant, e *elector) {
	u := &e.unheld
	if id := n.holderOf(e); id != "" {
		if u.since == 0 {
			return
		}
		end := now
		if p := n.peer(id); p != nil {
			end = now.Add(-p.tenures[e.name].Held) // it held for a while before it was heard to
		}
		u.total += max(end.Sub(u.since), 0)
		u.since = 0
		return
	}
	if u.since != 0 || now.Sub(n.knows) < n.Timing.Lease+n.Timing.Guard {
		return
	}
	u.since = now
	switch {
	case e.holder == "" && u.total == 0:
		u.since = n.born
	case n.peer(e.holder) != nil:
		u.since = min(now, max(e.heard, n.born))
	case e.holder == n.Self:
		u.since = min(now, e.until)
	}
}

// tookFromTheDead counts the time since the last sign of life of e's holder where another
// took the address, at the instant, before it was known that nobody held it.
func (e *elector) tookFromTheDead(at clock.Instant, why election.Reason) {
	if e.unheld.since == 0 && why == election.NodeDead && e.heard != 0 {
		e.unheld.total += max(at.Sub(e.heard), 0)
	}
}

// recount begins to count anew: what was counted so far is kept by who asked for it.
func (u *unheld) recount(now clock.Instant) {
	u.total = 0
	if u.since != 0 {
		u.since = now
	}
}

func (u *unheld) until(now clock.Instant) time.Duration {
	if u.since == 0 {
		return u.total
	}
	return u.total + now.Sub(u.since)
}

// aDay is the longest of some durations within the last 24 hours, to the hour.
type aDay struct {
	hours [25]time.Duration
	hour  int64 // of the latest, since the clock's beginning
}

func (d *aDay) turn(at clock.Instant) {
	hour := int64(at) / int64(time.Hour)
	for ; d.hour < hour; d.hour++ {
		if hour-d.hour > int64(len(d.hours)) {
			d.hour = hour - int64(len(d.hours))
		}
		d.hours[(d.hour+1)%int64(len(d.hours))] = 0
	}
}

func (d *aDay) add(at clock.Instant, v time.Duration) {
	d.turn(at)
	i := d.hour % int64(len(d.hours))
	d.hours[i] = max(d.hours[i], v)
}

func (d *aDay) longest(now clock.Instant) time.Duration {
	d.turn(now)
	return slices.Max(d.hours[:])
}
