package lab

import (
	"context"
	"fmt"
	"time"

	"proxyd/internal/control"
)

// Upgrade puts a process of binary ("" for the node's own) in the place of proxyd, as
// `hactl upgrade` does.
func (n *Node) Upgrade(ctx context.Context, binary string) (*control.Upgraded, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := n.client.Upgrade(ctx, control.Upgrade{Binary: binary})
	if err != nil {
		return nil, fmt.Errorf("upgrade %s: %w", n.Name, err)
	}
	p, err := adopt("proxyd on "+n.Name, r.PID)
	if err != nil {
		return nil, err
	}
	n.Host.mu.Lock()
	n.procs = append(n.procs, p)
	n.Host.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	return r, nil
}

// upgradeAll upgrades every node in place, one after the other, the holder last. The VIP
// must be where it was, under the term that it had.
func upgradeAll(ctx context.Context, s *Stage, holder *Node, binary string) error {
	before, err := holder.Status(ctx)
	if err != nil {
		return err
	}
	for _, n := range append(s.others(holder), holder) {
		if _, err := n.Upgrade(ctx, binary); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	after, err := holder.Status(ctx)
	if err != nil {
		return err
	}
	if heldBy(after) != holder.Name {
		return fmt.Errorf("%s held the VIP before the upgrades, %q does after them", holder.Name, heldBy(after))
	}
	if a, b := before.VIPs[0], after.VIPs[0]; a.Term != b.Term {
		return fmt.Errorf("the VIP had term %d before the upgrades and has %d after them: it has moved", a.Term, b.Term)
	}
	return nil
}

// others returns all nodes but n.
func (s *Stage) others(n *Node) []*Node {
	var out []*Node
	for _, o := range s.Nodes {
		if o != n {
			out = append(out, o)
		}
	}
	return out
}
