package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"proxyd/internal/control"
)

// absentVoter is the address of a voter that has no host on the stage: while it is one of three,
// the two that are there are just a majority.
const absentVoter = subnet + "250:7946"

// voters makes the voters of a pair three, and two again, as an operator does. The VIP must stay
// where it is, under the term that it has, and no node may know of a moment without a holder.
func voters(ctx context.Context, s *Stage, holder *Node) error {
	before, err := s.tenures(ctx)
	if err != nil {
		return err
	}
	asked := s.Other(holder).Client() // whoever is asked
	for _, w := range []control.MemberWish{{Op: "add", Address: absentVoter, CanaryMS: 500}, {Op: "remove", Node: absentVoter, CanaryMS: 500}} {
		if _, err := asked.Member(ctx, w); err != nil {
			return fmt.Errorf("member %s: %w", w.Op, err)
		}
		// A lease must be renewed by the new list before it counts.
		if err := pause(ctx, 3*time.Second); err != nil {
			return err
		}
		after, err := s.tenures(ctx)
		if err != nil {
			return err
		}
		for name, was := range before {
			if is := after[name]; is != was {
				err = errors.Join(err, fmt.Errorf("member %s: %s knew of the VIP %+v before, %+v afterwards", w.Op, name, was, is))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A tenure is what a node knows of the VIP.
type tenure struct {
	Holder string
	Term   uint64
	Unheld float64 // seconds without a holder
}

// tenures returns what each node knows of the VIP.
func (s *Stage) tenures(ctx context.Context) (map[string]tenure, error) {
	all := map[string]tenure{}
	for _, n := range s.Nodes {
		st, err := n.Status(ctx)
		if err != nil {
			return nil, err
		}
		all[n.Name] = tenure{heldBy(st), st.VIPs[0].Term, st.VIPs[0].UnheldS}
	}
	return all, nil
}
