package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/rehearsal"
)

// Simulate implements control.Operator.
func (n *node) Simulate(ctx context.Context, q control.SimulateQuery) (*control.Simulation, error) {
	fault := rehearsal.Fault(q.Fault)
	switch fault {
	case rehearsal.Kill, rehearsal.Cut, rehearsal.Freeze, rehearsal.Drain:
	default:
		return nil, control.Invalid(fmt.Sprintf("fault %q: want kill, cut, freeze or drain", q.Fault))
	}
	k, _, _ := n.part()
	if k == nil {
		return nil, control.Refuse("this node has no cluster and no VIP: nothing would move")
	}
	v, err := k.node.Status(ctx)
	if err != nil {
		return nil, err
	}
	hit, names := election.ID(""), []string{}
	for _, nv := range v.Nodes {
		names = append(names, nv.Name)
		if q.Node == nv.Name || q.Node == string(nv.ID) {
			hit = nv.ID
		}
	}
	if hit == "" {
		return nil, control.Refuse(fmt.Sprintf("there is no node %q; there are %s", q.Node, strings.Join(names, ", ")))
	}
	played, err := rehearsal.Play(k.scene(v), fault, hit)
	if err != nil {
		return nil, control.Refuse(err.Error() + ": what fails must be there")
	}
	s := &control.Simulation{Fault: q.Fault, Node: nameIn(v, hit), VIPs: []control.Simulated{}, Unheld: []string{}}
	for _, o := range played {
		r := control.Simulated{From: holderOrNull(v, o.From), To: holderOrNull(v, o.To), MS: milliseconds(o.After), UnheldMS: milliseconds(o.Unheld), Steps: []control.SimulatedStep{}}
		for _, p := range o.Steps {
			r.Steps = append(r.Steps, control.SimulatedStep{MS: milliseconds(p.After), Node: p.Node, Text: p.Text})
		}
		if k.now().config.VIP[o.VIP] == nil {
			r.VIP = o.VIP
			s.VIPs = append(s.VIPs, r)
		}
		for _, vip := range vipsOf(k.now().config) {
			if leader(k.now().config, vip) == o.VIP {
				r.VIP = vip.Name
				s.VIPs = append(s.VIPs, r)
			}
		}
		if o.To == "" {
			s.Unheld = append(s.Unheld, o.VIP)
		}
	}
	return s, nil
}

// scene is the cluster as this node sees it.
func (k *cluster) scene(v ha.View) rehearsal.Scene {
	t := k.now().config.Cluster.Timing
	s := rehearsal.Scene{Lease: t.Lease, Guard: t.Guard, Beat: t.Heartbeat}
	for _, nv := range v.Nodes {
		// Who stands by votes, and holds what it has until another takes it. Who drains holds
		// where nobody else can.
		holds := slices.ContainsFunc(v.VIPs, func(vv ha.VIPView) bool { return slices.Contains(vv.IDs, nv.ID) })
		s.Nodes = append(s.Nodes, rehearsal.Node{ID: nv.ID, Name: nv.Name, Heard: nv.State != ha.Unheard, Fit: nv.State == ha.Up,
			Witness: nv.Witness || nv.State == ha.Draining && !holds && !nv.Last})
	}
	for _, vv := range v.VIPs {
		c := k.now().config.VIP[vv.Name]
		if c == nil {
			c = new(config.VIP) // a witness has none in its file: of others' it knows what they say
		}
		if c.Follow != "" {
			continue
		}
		e := rehearsal.VIP{Name: vv.Name, Order: vv.Prefer}
		if len(vv.IDs) > 0 {
			e.Holder = vv.IDs[0]
		}
		if c.Preempt.On && len(c.Prefer) > 0 {
			e.Preempt = max(c.Preempt.After, 1)
		}
		s.VIPs = append(s.VIPs, e)
	}
	return s
}

func nameIn(v ha.View, id election.ID) string {
	for _, nv := range v.Nodes {
		if nv.ID == id {
			return nv.Name
		}
	}
	return string(id)
}

func holderOrNull(v ha.View, id election.ID) *string {
	if id == "" {
		return nil
	}
	name := nameIn(v, id)
	return &name
}
