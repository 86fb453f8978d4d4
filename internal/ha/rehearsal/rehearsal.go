// Package rehearsal plays what would happen now if a node failed: the machines that
// decide are the real ones, on virtual time, with the cluster as it is as their beginning.
package rehearsal

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// Fault is what is done to a node.
type Fault string

const (
	Kill   Fault = "kill"   // its process dies
	Cut    Fault = "cut"    // its cable is pulled: it hears nobody, and nobody hears it
	Freeze Fault = "freeze" // its process stands still
	Drain  Fault = "drain"  // an operator takes it out
)

// A Scene is the cluster as it is.
type Scene struct {
	Lease, Guard, Beat time.Duration
	Nodes              []Node
	VIPs               []VIP
}

// Node is one voter.
type Node struct {
	ID      election.ID
	Name    string
	Heard   bool // else it is taken for dead
	Fit     bool
	Witness bool // it has no addresses
}

// VIP is one election.
type VIP struct {
	Name    string
	Order   []election.ID // of the candidates, the best first
	Holder  election.ID   // "" if nobody holds it
	Preempt time.Duration
}

// Outcome is what became of one VIP.
type Outcome struct {
	VIP      string
	From, To election.ID   // To is "" if nobody holds it at the end
	After    time.Duration // from the fault until To holds; 0 if From never ceased to
	Unheld   time.Duration // of that without anybody
	Steps    []Step
}

// Step is one thing that happened, After after the fault.
type Step struct {
	After time.Duration
	Node  string
	Text  string
}

const (
	// delay is how long a message takes: a LAN's.
	delay = 200 * time.Microsecond
	// noticed is how long it takes until a lifeline that closed was refused again.
	noticed = 2 * time.Millisecond
	// leases is for how many of them it is played after the fault.
	leases = 40
)

// Play does f to the node and returns what becomes of each VIP, by name.
func Play(s Scene, f Fault, node election.ID) ([]Outcome, error) {
	if !slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.ID == node && n.Heard }) {
		return nil, fmt.Errorf("%s is no node that is heard", node)
	}
	var out []Outcome
	for _, v := range s.VIPs {
		p := newPlay(s, v)
		p.warm()
		out = append(out, p.do(f, node))
	}
	slices.SortFunc(out, func(a, b Outcome) int { return cmp.Compare(a.VIP, b.VIP) })
	return out, nil
}

// play is one election on virtual time.
type play struct {
	Scene
	vip    VIP
	now    clock.Instant
	actors []*actor
	queue  []event
	serial int

	began clock.Instant // when the fault happened; 0 before
	steps []Step
}

// actor is one node.
type actor struct {
	Node
	machine *election.Machine
	role    election.Role
	until   clock.Instant // it answers for the address until then
	out     bool          // dead, or frozen
	cut     bool
	asked   bool // a permit was asked for since the fault
}

// event is something to come.
type event struct {
	at     clock.Instant
	serial int
	to     *actor
	ev     election.Event
	from   *actor // of a message
}

func newPlay(s Scene, v VIP) *play {
	p := &play{Scene: s, vip: v, now: clock.Instant(time.Hour)}
	order := v.Order
	if i := slices.Index(order, v.Holder); i > 0 {
		// So that the play begins with the holder there is; the order follows.
		order = append([]election.ID{v.Holder}, slices.Delete(slices.Clone(order), i, i+1)...)
	}
	for _, n := range s.Nodes {
		if !n.Heard {
			continue
		}
		p.actors = append(p.actors, &actor{Node: n, machine: election.New(p.now, election.Config{
			Self: n.ID, Voters: order, Lease: s.Lease, Guard: s.Guard, Beat: s.Beat, Witness: n.Witness, Preempt: v.Preempt,
		}), role: election.Standby})
	}
	return p
}

// warm lets the holder come to hold, and then tells the rest of how things are.
func (p *play) warm() {
	for _, a := range p.actors {
		if a.ID != p.vip.Holder && p.vip.Holder != "" {
			p.give(a, election.Deaf{Deaf: true}) // it does not run yet
		} else if !a.Fit && p.vip.Holder == "" {
			p.give(a, election.Fitness{Ill: 1})
		}
	}
	p.run(p.now.Add(10 * (p.Lease + p.Guard)))
	for _, a := range p.actors {
		p.give(a, election.Deaf{Deaf: false})
		p.give(a, election.Order{Voters: p.vip.Order})
		if !a.Fit {
			p.give(a, election.Fitness{Ill: 1})
		}
	}
	p.run(p.now.Add(2 * p.Lease))
}

// do does f and watches.
func (p *play) do(f Fault, node election.ID) Outcome {
	// In the middle between two beats: neither luck nor the lack of it.
	p.run(p.now.Add(p.Beat - time.Duration(int64(p.now)%int64(p.Beat)) + p.Beat/2))
	p.began = p.now
	before := p.holder()
	var hit *actor
	for _, a := range p.actors {
		if a.ID == node {
			hit = a
		}
	}
	switch f {
	case Kill:
		p.say(hit, "its process dies; its lifelines close and are refused")
		hit.out, hit.until = true, 0
		for _, a := range p.actors {
			if a != hit {
				p.later(noticed, event{to: a, ev: election.Gone{Peer: hit.ID, At: p.now}})
			}
		}
	case Freeze:
		p.say(hit, "its process stands still; the address falls silent when its lease ends")
		hit.out = true
	case Cut:
		p.say(hit, "hears nobody, and nobody hears it")
		hit.cut = true
		// It finds out that it is deaf when it asks, at the latest when its lease ends.
	case Drain:
		p.say(hit, "an operator takes it out")
		p.give(hit, election.HandOver{})
		p.give(hit, election.Fitness{Ill: 1})
	}
	o := Outcome{VIP: p.vip.Name}
	if before != nil {
		o.From = before.ID
	}
	end := p.began.Add(leases * (p.Lease + p.Guard))
	for p.now < end {
		free := p.holder() == nil
		was := p.now
		p.next(end)
		if free {
			o.Unheld += p.now.Sub(was)
		}
		h := p.holder()
		switch {
		case h == nil:
			o.To, o.After = "", 0
		case h.ID != o.To:
			o.To, o.After = h.ID, p.now.Sub(p.began)
		}
	}
	if o.To == o.From && o.Unheld == 0 {
		o.After = 0
	}
	o.Steps = p.steps
	return o
}

// holder returns who answers for the address now; of two the one that began last.
func (p *play) holder() *actor {
	var h *actor
	for _, a := range p.actors {
		if p.now < a.until && (h == nil || a.machine.View().Since > h.machine.View().Since) {
			h = a
		}
	}
	return h
}

// run plays until the instant.
func (p *play) run(end clock.Instant) {
	for p.now < end {
		p.next(end)
	}
}

// next goes on to the next thing that happens, at end at the latest.
func (p *play) next(end clock.Instant) {
	at := end
	for _, e := range p.queue {
		at = min(at, e.at)
	}
	for _, a := range p.actors {
		if !a.out {
			at = min(at, a.machine.Deadline())
		}
		if a.until > p.now {
			at = min(at, a.until)
		}
	}
	p.now = max(at, p.now)
	slices.SortFunc(p.queue, func(a, b event) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.serial, b.serial)) })
	for len(p.queue) > 0 && p.queue[0].at <= p.now {
		e := p.queue[0]
		p.queue = p.queue[1:]
		if e.from != nil && (e.to.cut || e.from.cut) {
			continue
		}
		p.give(e.to, e.ev)
	}
	for _, a := range p.actors {
		if !a.out && a.machine.Deadline() <= p.now {
			p.give(a, election.Tick{})
		}
	}
}

func (p *play) later(d time.Duration, e event) {
	p.serial++
	e.at, e.serial = p.now.Add(d), p.serial
	p.queue = append(p.queue, e)
}

// give gives an event to a's machine and does what it says.
func (p *play) give(a *actor, ev election.Event) {
	if a.out {
		return
	}
	for _, act := range a.machine.Step(p.now, ev) {
		switch act := act.(type) {
		case election.Send:
			for _, to := range p.actors {
				if to.ID == act.To {
					p.later(delay, event{to: to, from: a, ev: election.Received{From: a.ID, Msg: act.Msg}})
				}
			}
		case election.Hold:
			if a.until <= p.now {
				p.say(a, fmt.Sprintf("holds the address (%s)", act.Reason))
			}
			a.until = act.Until
		case election.Yield:
			p.say(a, "hands the address to "+p.name(act.To))
			a.until = 0
		case election.Drop:
			p.say(a, fmt.Sprintf("lets the address go (%s)", act.Reason))
			a.until = 0
		case election.WantPermit:
			p.permit(a, act)
		}
	}
	if r := a.machine.Role(); r != a.role {
		if r == election.Candidate {
			p.say(a, "asks for the lease")
		}
		a.role = r
	}
}

// permit asks the network as a node would: one that is cut off hears nothing, and a peer
// that is well answers the challenge.
func (p *play) permit(a *actor, w election.WantPermit) {
	if !a.asked && p.began != 0 {
		a.asked = true
		p.say(a, "asks the network whether it may hold without "+p.name(w.Peer))
	}
	ok := !a.cut
	for _, o := range p.actors {
		if o.ID == w.Peer && !w.Keep {
			ok = ok && (o.out || o.cut)
		}
	}
	d := 2*p.Beat - p.Beat/4
	if !ok && a.cut {
		p.later(d, event{to: a, ev: election.Deaf{Deaf: true}})
	}
	p.later(d, event{to: a, ev: election.Permit{Round: w.Round, Ok: ok}})
}

func (p *play) say(a *actor, text string) {
	if p.began != 0 {
		p.steps = append(p.steps, Step{p.now.Sub(p.began), a.Name, text})
	}
}

func (p *play) name(id election.ID) string {
	for _, n := range p.Nodes {
		if n.ID == id {
			return n.Name
		}
	}
	return string(id)
}
