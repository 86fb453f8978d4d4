package ha

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// ErrRefused is the cause of a hand-over that was not begun.
var ErrRefused = errors.New("refused")

// noteLife is how long a note waits for the change that it explains.
const noteLife = 10 * time.Second

// Moved is how a hand-over went.
type Moved struct {
	VIPs     []string // those that moved; none if all were there already
	From, To string   // names; "" if they were several
	Took     time.Duration
}

// A move is a planned hand-over on its way. The node that was asked for it keeps it,
// reminds the holders of it with every beat, and sees when it is done.
type move struct {
	id    uint64
	steps []step
	text  string
	began clock.Instant
	done  chan error // has room for one
}

// step is the part of a move that is one election.
type step struct {
	elector  *elector
	from, to election.ID
	chosen   bool // an operator wants it there, where it would not go by itself
	last     bool // the old holder lets go in any case
}

func (m *move) end(err error) {
	select {
	case m.done <- err:
	default:
	}
}

// remind puts into the frame for p what it must know of the move.
func (m *move) remind(p *peer) {
	for _, s := range m.steps {
		t := note{VIP: s.elector.name, Text: m.text}
		p.out.add(noteRecord, t.append)
		if s.from == p.id {
			q := request{ID: m.id ^ fnv64(s.elector.name), VIP: s.elector.name, To: s.to, Chosen: s.chosen}
			p.out.add(requestRecord, q.append)
		}
	}
}

// Failover hands vip, or all that is held if vip is "", to the node named to, or to the
// best fit one if to is "", and returns when it is held there. If ctx ends before, the
// hand-over may still happen.
func (n *Node) Failover(ctx context.Context, vip, to, reason string) (Moved, error) {
	var m *move
	var moved Moved
	var refused error
	err := n.ask(ctx, func(now clock.Instant) {
		m, moved, refused = n.plan(vip, to)
		if refused == nil && len(m.steps) > 0 {
			m.text = reason
			n.begin(now, m)
		}
	})
	if err = errors.Join(err, refused); err != nil || len(m.steps) == 0 {
		return moved, err
	}
	err = n.await(ctx, m)
	moved.Took = n.Now().Sub(m.began)
	return moved, err
}

// plan finds out what a hand-over would move. It moves nothing.
func (n *Node) plan(vip, to string) (*move, Moved, error) {
	electors := n.electors
	if vip != "" {
		e := n.byVIP[vip]
		if e == nil {
			return nil, Moved{}, fmt.Errorf("%w: there is no VIP %q", ErrRefused, vip)
		}
		electors = []*elector{e}
	}
	m := &move{id: rand.Uint64(), done: make(chan error, 1)}
	var moved Moved
	for _, e := range electors {
		from := n.holderOf(e)
		if from == "" {
			if vip == "" {
				continue
			}
			return nil, moved, fmt.Errorf("%w: nobody is known to hold %s", ErrRefused, e.name)
		}
		target, err := n.target(e, from, to)
		if err != nil {
			return nil, moved, fmt.Errorf("%w: %s: %w", ErrRefused, e.name, err)
		}
		if target == from {
			continue
		}
		moved.From, moved.To = n.one(len(m.steps), moved.From, from), n.one(len(m.steps), moved.To, target)
		m.steps = append(m.steps, step{elector: e, from: from, to: target, chosen: !n.natural(e, from, target)})
		moved.VIPs = append(moved.VIPs, e.vips...)
	}
	if len(m.steps) == 0 && len(moved.VIPs) == 0 && vip == "" && !slices.ContainsFunc(n.electors, func(e *elector) bool { return n.holderOf(e) != "" }) {
		return nil, moved, fmt.Errorf("%w: nobody is known to hold anything", ErrRefused)
	}
	return m, moved, nil
}

// one returns the name of id if it is the first, or the same as before; else "".
func (n *Node) one(before int, name string, id election.ID) string {
	if before == 0 || name == n.nameOf(id) {
		return n.nameOf(id)
	}
	return ""
}

// holderOf returns who holds e now, "" if nobody is known to.
func (n *Node) holderOf(e *elector) election.ID {
	if e.held {
		return n.Self
	}
	for _, p := range n.peers {
		if p.alive && p.tenures[e.name].Holds {
			return p.id
		}
	}
	return ""
}

// target finds the node that is to have e.
func (n *Node) target(e *elector, from election.ID, to string) (election.ID, error) {
	if to == "" {
		id, ok := e.machine.Successor("")
		if from != n.Self {
			id = n.successor(e, from)
			ok = id != ""
		}
		if !ok {
			return "", errors.New("no other node is fit for it")
		}
		return id, nil
	}
	if to == n.Name || to == string(n.Self) {
		if from != n.Self && (!n.fit(e) || e.barred) {
			return "", fmt.Errorf("%s is not fit for it: %s %s", to, n.state, n.reason)
		}
		return n.Self, nil
	}
	for _, p := range n.peers {
		if to != p.hello.Name && to != string(p.id) {
			continue
		}
		switch {
		case !p.alive:
			return "", fmt.Errorf("%s is not heard: %s", to, p.why)
		case p.hello.Witness:
			return "", fmt.Errorf("%s is a witness: it votes and holds nothing", to)
		case p.hello.State != Up && p.id != from:
			return "", fmt.Errorf("%s is not fit for it: %s %s", to, p.hello.State, p.hello.Reason)
		}
		return p.id, nil
	}
	return "", fmt.Errorf("there is no node %q", to)
}

// successor returns the best fit candidate for e other than from, "" if there is none.
func (n *Node) successor(e *elector, from election.ID) election.ID {
	for _, id := range e.order {
		if id == from {
			continue
		}
		if id == n.Self {
			if n.fit(e) && !e.barred {
				return id
			}
		} else if p := n.peer(id); p.able() {
			return id
		}
	}
	return ""
}

// begin tells everybody of a move, and hands over what is ours. The note goes first: the
// successor may hold as soon as it hears of the hand-over.
func (n *Node) begin(now clock.Instant, m *move) {
	m.began = now
	n.moves = append(n.moves, m)
	for _, s := range m.steps {
		s.elector.note, s.elector.noteAt = m.text, now
		n.note(Fact{At: now, Kind: FactAsked, VIP: s.elector.name, Peer: n.Name, Term: s.elector.machine.View().Term,
			Text: fmt.Sprintf("from %s to %s: %s", n.nameOf(s.from), n.nameOf(s.to), orNone(m.text))})
	}
	for _, p := range n.peers {
		m.remind(p)
	}
	for _, s := range m.steps {
		if s.from == n.Self {
			n.stage(now, s.elector, election.HandOver{To: s.to, Chosen: s.chosen, Last: s.last})
		}
	}
	n.perform()
}

// requested takes in a peer's request to hand over what is ours.
func (n *Node) requested(now clock.Instant, p *peer, q request) {
	e := n.byVIP[q.VIP]
	if e == nil || !e.held || slices.Contains(p.requests[:], q.ID) {
		return
	}
	p.requests[p.turn%len(p.requests)] = q.ID
	p.turn++
	n.Log.Info("hand-over asked for", "vip", e.name, "by", n.nameOf(p.id), "to", n.nameOf(q.To))
	n.note(Fact{At: now, Kind: FactAsked, VIP: e.name, Peer: n.nameOf(p.id), Term: e.term, Text: fmt.Sprintf("to %s: %s", n.nameOf(q.To), orNone(e.note))})
	n.stage(now, e, election.HandOver{To: q.To, Chosen: q.Chosen})
}

// await waits until a move is done, or ctx ends.
func (n *Node) await(ctx context.Context, m *move) error {
	select {
	case err := <-m.done:
		return err
	case <-n.done:
		return ErrStopped
	case <-ctx.Done():
		_ = n.ask(context.WithoutCancel(ctx), func(clock.Instant) {
			n.moves = slices.DeleteFunc(n.moves, func(o *move) bool { return o == m })
		})
		return fmt.Errorf("hand-over: %w", ctx.Err())
	}
}

// settle does what depends on all that a turn brought: what this node can do, and which
// moves are done.
func (n *Node) settle(now clock.Instant) {
	n.judge(now)
	n.rest(now)
	if n.replace || n.news {
		n.replace = false
		n.place(now)
	}
	for _, e := range n.electors {
		n.watchUnheld(now, e)
	}
	n.sendOn(now)
	n.moves = slices.DeleteFunc(n.moves, func(m *move) bool {
		done := true
		for _, s := range m.steps {
			if n.retaken(now, m, s) {
				m.end(fmt.Errorf("%s: %s did not take it; %s holds it again", s.elector.name, n.nameOf(s.to), n.nameOf(s.from)))
				return true
			}
			done = done && n.holds(s.to, s.elector) && !n.holds(s.from, s.elector)
		}
		if done {
			m.end(nil)
		}
		return done
	})
}

// retaken reports whether the old holder has begun to hold again since the move began.
func (n *Node) retaken(now clock.Instant, m *move, s step) bool {
	if !n.holds(s.from, s.elector) {
		return false
	}
	if s.from == n.Self {
		return s.elector.since > m.began
	}
	p := n.peer(s.from)
	return p.heard.Add(-p.tenures[s.elector.name].Held) > m.began
}

// orNone says that no reason was given.
func orNone(reason string) string {
	if reason == "" {
		return "no reason given"
	}
	return fmt.Sprintf("%q", reason)
}

func (n *Node) holds(id election.ID, e *elector) bool {
	if id == n.Self {
		return e.held
	}
	p := n.peer(id)
	return p != nil && p.alive && p.tenures[e.name].Holds
}

// Leave hands everything over and takes part as a mere voter from then on. It returns
// when this host holds nothing any more: with nil if others hold it all; with ctx's
// error, or ErrRefused because nobody else is fit, if it was let go all the same.
func (n *Node) Leave(ctx context.Context) error {
	m := &move{id: rand.Uint64(), text: "the node leaves", done: make(chan error, 1)}
	err := n.ask(ctx, func(now clock.Instant) {
		n.wish.leaving = true
		n.restate(now)
		var alone error
		for _, e := range n.electors {
			if !e.held {
				continue
			}
			if to, ok := e.machine.Successor(""); ok {
				m.steps = append(m.steps, step{elector: e, from: n.Self, to: to})
			} else if to, ok := e.machine.LastSuccessor(); ok {
				m.steps = append(m.steps, step{elector: e, from: n.Self, to: to, last: true})
			} else {
				alone = fmt.Errorf("%w: no other node is fit for %s", ErrRefused, e.name)
			}
		}
		n.begin(now, m)
		if alone != nil {
			m.end(alone)
		}
	})
	if err == nil {
		err = n.await(ctx, m)
	}
	if errors.Is(err, ErrStopped) {
		return nil // Run let go of all when it returned
	}
	if len(n.peers) == 0 {
		err = nil // it never was a cluster
	}
	return errors.Join(err, n.ask(context.WithoutCancel(ctx), func(now clock.Instant) {
		n.left = true
		n.judge(now)
	}))
}
