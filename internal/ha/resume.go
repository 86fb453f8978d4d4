package ha

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
	"proxyd/internal/memory"
)

// legacy is what a Node leaves to the next process: all that it knows and has promised. The
// instants in it are of the boot's clock, which both have.
type legacy struct {
	Node     json.RawMessage            `json:"node"`
	Electors map[string]legacyOfAVIP    `json:"electors"`
	Peers    map[election.ID]savedState `json:"peers"`
}

type legacyOfAVIP struct {
	Elector json.RawMessage `json:"elector"`
	Machine json.RawMessage `json:"machine"`
}

type savedState = json.RawMessage

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
	l := legacy{Electors: map[string]legacyOfAVIP{}, Peers: map[election.ID]savedState{}}
	var errs []error
	var err error
	l.Node, err = memory.Of(n, "Config")
	errs = append(errs, err)
	for _, e := range n.electors {
		var v legacyOfAVIP
		v.Elector, err = memory.Of(e)
		errs = append(errs, err)
		v.Machine, err = e.machine.Memory()
		errs = append(errs, err)
		l.Electors[e.name] = v
	}
	for _, p := range n.peers {
		l.Peers[p.id], err = memory.Of(p, "out")
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return json.Marshal(l)
}

// Recall goes on from where the loop of another process was halted. It is called before Run,
// on a node of the same voters and VIPs.
func (n *Node) Recall(known json.RawMessage) error {
	var l legacy
	if err := json.Unmarshal(known, &l); err != nil {
		return fmt.Errorf("what the process before knew: %w", err)
	}
	if err := memory.Recall(n, l.Node, "Config"); err != nil {
		return err
	}
	for _, e := range n.electors {
		v, there := l.Electors[e.name]
		if !there {
			return fmt.Errorf("the process before knew nothing of vip %q", e.name)
		}
		fresh := *e
		err := errors.Join(memory.Recall(e, v.Elector), e.machine.Recall(v.Machine))
		if err != nil {
			return err
		}
		e.name, e.vips = fresh.name, fresh.vips
		// A probe that was under way is lost with the process; another is begun.
		e.asking = false
	}
	for _, p := range n.peers {
		was, there := l.Peers[p.id]
		if !there {
			return fmt.Errorf("the process before knew nothing of voter %s", p.id)
		}
		id := p.id
		if err := memory.Recall(p, was, "out"); err != nil {
			return err
		}
		p.id = id
	}
	return nil
}
