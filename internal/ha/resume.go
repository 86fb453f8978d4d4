package ha

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"proxyd/internal/clock"
	"proxyd/internal/memory"
)

// memoryVersion is that of what fields names, of a Node and its parts.
const memoryVersion = 1

// known is all that a Node knows and has promised. The instants in it are of the boot's
// clock, which both processes have. What the machines know is written down by them.
func (n *Node) known(machines map[string]json.RawMessage) memory.Fields {
	electors, peers, voters := memory.Fields{}, memory.Fields{}, slices.Clone(n.Voters)
	for _, e := range n.electors {
		electors[e.name] = e.fields()
	}
	for _, p := range n.peers {
		peers[string(p.id)] = p.fields()
	}
	return memory.Fields{"node": n.fields(), "electors": electors, "peers": peers, "machines": &machines, "voters": &voters}
}

// Halt stops the loop where it is and returns what this node knows. Until settle is called
// nothing is decided, asked or promised here. settle(true) ends the loop, which lets go of
// nothing: another process goes on from there. settle(false) lets it go on itself.
//
// It is refused while a hand-over is under way.
func (n *Node) Halt(ctx context.Context) (known json.RawMessage, settle func(gone bool), err error) {
	type result struct {
		known json.RawMessage
		err   error
	}
	told, decided, done := make(chan result, 1), make(chan bool), make(chan struct{})
	call := func(clock.Instant) {
		defer close(done)
		known, err := n.remember()
		told <- result{known, err}
		if err == nil {
			n.handed = <-decided
		}
	}
	select {
	case n.calls <- call:
	case <-n.done:
		return nil, nil, ErrStopped
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("ask the cluster's loop: %w", ctx.Err())
	}
	r := <-told
	if r.err != nil {
		return nil, nil, r.err
	}
	return r.known, func(gone bool) { decided <- gone; <-done }, nil
}

// remember writes down what the loop knows.
func (n *Node) remember() (json.RawMessage, error) {
	if len(n.moves) > 0 || n.wish.leaving || n.left {
		return nil, fmt.Errorf("%w: a hand-over is under way", ErrRefused)
	}
	machines := map[string]json.RawMessage{}
	for _, e := range n.electors {
		var err error
		if machines[e.name], err = e.machine.Memory(); err != nil {
			return nil, err
		}
	}
	return memory.Write(memoryVersion, n.known(machines))
}

// Recall goes on from where another loop was halted, of another process or, where the list of
// voters is another, of this one (election.Machine's Recall says which list that may be). It is
// called before Run, on a node of the same VIPs.
func (n *Node) Recall(known json.RawMessage) error {
	machines, voters := map[string]json.RawMessage{}, n.Voters
	if err := memory.Read(known, memoryVersion, memory.Fields{"machines": &machines, "voters": &voters}); err != nil {
		return fmt.Errorf("what the process before knew: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(machines)) {
		n.guest(n.born, name) // what was promised in the election of a guest stays promised
	}
	if err := memory.Read(known, memoryVersion, n.known(machines)); err != nil {
		return fmt.Errorf("what the process before knew: %w", err)
	}
	for _, e := range n.electors {
		text, there := machines[e.name]
		if !there {
			return fmt.Errorf("the process before knew nothing of vip %q", e.name)
		}
		if err := e.machine.Recall(text); err != nil {
			return fmt.Errorf("what the process before knew of vip %q: %w", e.name, err)
		}
		e.unheld.recount(n.Now())
	}
	if fingerprint(voters) != fingerprint(n.Voters) {
		n.listed, n.replace = n.Now(), true
		for _, e := range n.electors {
			e.order = slices.Clone(e.machine.Voters) // place orders them, and tells the machine
		}
	}
	for _, p := range n.peers {
		p.out.version = n.Wire.To(p.newest)
	}
	return nil
}
