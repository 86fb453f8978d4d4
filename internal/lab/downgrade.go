package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// nextName is the program, beside this one, that pretends to be the next release: it speaks one
// version more of what nodes send each other. `make lab` builds it.
const nextName = "proxyd-next"

// A hop is one step of a downgrade: a node goes to the next release, or back.
type hop struct {
	holder bool // else the other node
	next   bool
}

// downgrade takes a pair to the next release and back, node by node, through every mixture. The
// nodes must know of each other's release, and the VIP must stay where it is, under the term
// that it has.
func downgrade(ctx context.Context, s *Stage, holder *Node) error {
	next := filepath.Join(filepath.Dir(s.lab), nextName)
	if _, err := os.Stat(next); err != nil {
		return fmt.Errorf("the next release: %w (make lab)", err)
	}
	other := s.Other(holder)
	before, err := holder.Status(ctx)
	if err != nil {
		return err
	}
	wire := map[string]int{}
	for _, n := range before.Nodes {
		wire[n.Name] = n.Wire
	}
	today := wire[holder.Name]
	for _, h := range []hop{{false, true}, {false, false}, {false, true}, {true, true}, {true, false}, {true, true}, {false, false}, {true, false}} {
		n, binary, version := other, "", today
		if h.holder {
			n = holder
		}
		if h.next {
			binary, version = next, today+1
		}
		if binary == "" {
			binary = n.binary
		}
		if _, err := n.Upgrade(ctx, binary); err != nil {
			return err
		}
		wire[n.Name] = version
		for _, from := range s.Nodes {
			if err := from.seesWire(ctx, wire); err != nil {
				return err
			}
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	after, err := holder.Status(ctx)
	if err != nil {
		return err
	}
	if heldBy(after) != holder.Name || before.VIPs[0].Term != after.VIPs[0].Term {
		return fmt.Errorf("%s held the VIP under term %d before, %q under %d afterwards", holder.Name, before.VIPs[0].Term, heldBy(after), after.VIPs[0].Term)
	}
	return nil
}

// seesWire waits until a node knows which version each of the nodes speaks.
func (n *Node) seesWire(ctx context.Context, wire map[string]int) error {
	return within(ctx, 5*time.Second, n.Name+" to know who speaks what", func() (bool, error) {
		st, err := n.Status(ctx)
		if err != nil {
			return false, notYet{err}
		}
		for _, o := range st.Nodes {
			if o.Wire != wire[o.Name] || o.State == "unheard" {
				return false, notYet{fmt.Errorf("%s is %s and speaks version %d, want %d", o.Name, o.State, o.Wire, wire[o.Name])}
			}
		}
		return true, nil
	})
}
