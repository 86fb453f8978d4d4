package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/ha"
	"proxyd/internal/ha/keyring"
)

// gossipPort is that of an address in cluster.join which names none.
const gossipPort = 7946

// Member implements control.Operator. The list of voters is changed by one voter at a time,
// in each node's own file, by an apply; of a pair the lost half is replaced in one, for every
// majority of the old list and of the new one has the survivor in it.
func (n *node) Member(ctx context.Context, w control.MemberWish) (*control.Applied, error) {
	n.mu.Lock()
	voters := slices.Clone(n.config.Cluster.Join)
	n.mu.Unlock()
	if len(voters) == 0 {
		return nil, control.Refuse("this node has no cluster: cluster.join is not given")
	}
	var err error
	var new, old netip.AddrPort
	if w.Op == "add" || w.Op == "replace" {
		if new, err = parseMember(w.Address); err != nil {
			return nil, control.Invalid(err.Error())
		}
		if slices.Contains(voters, new) {
			return nil, control.Refuse(fmt.Sprintf("%v is in cluster.join already", new))
		}
	}
	if w.Op == "remove" || w.Op == "replace" {
		if old, err = n.removable(ctx, &w); err != nil {
			return nil, err
		}
	}
	without := func() []netip.AddrPort {
		return slices.DeleteFunc(slices.Clone(voters), func(a netip.AddrPort) bool { return a == old })
	}
	what := func(verb string) string { return "member: " + verb }
	switch {
	case w.Op == "add":
		return n.applyVoters(ctx, w, append(voters, new), what("add "+new.String()))
	case w.Op == "remove" && len(voters) == 1:
		return nil, control.Refuse(fmt.Sprintf("%v is the only voter", old))
	case w.Op == "remove":
		return n.applyVoters(ctx, w, without(), what("remove "+old.String()))
	case w.Op == "replace" && len(voters) <= 2:
		voters[slices.Index(voters, old)] = new
		return n.applyVoters(ctx, w, voters, what(fmt.Sprintf("replace %v by %v", old, new)))
	case w.Op == "replace":
		r, err := n.applyVoters(ctx, w, without(), what("remove "+old.String()))
		if err != nil || w.DryRun {
			return r, err
		}
		w.Without = nil
		if err := n.awaitAll(ctx); err != nil {
			return nil, control.Refuse(fmt.Sprintf("%v is removed; %v is not added: %v; `hactl member add` does it", old, new, err))
		}
		r, err = n.applyVoters(ctx, w, append(without(), new), what("add "+new.String()))
		if err != nil {
			return nil, control.Refuse(fmt.Sprintf("%v is removed; %v is not added: %v; `hactl member add` does it", old, new, err))
		}
		return r, nil
	}
	return nil, control.Invalid(fmt.Sprintf("member %q: want add, remove or replace", w.Op))
}

func parseMember(words string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(words); err == nil {
		return a, nil
	}
	a, err := netip.ParseAddr(words)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q: want the address of a node, such as 10.0.0.13 or 10.0.0.13:%s", words, strconv.Itoa(gossipPort))
	}
	return netip.AddrPortFrom(a, gossipPort), nil
}

// removable finds the node that is to be removed, and leaves it out of the apply. It must be
// lost, or hold nothing by an operator's wish: a node that others do not count any more must
// not think that it holds something.
func (n *node) removable(ctx context.Context, w *control.MemberWish) (netip.AddrPort, error) {
	k, _, _ := n.part()
	if k == nil {
		return netip.AddrPort{}, control.Refuse("the cluster part of this node does not run")
	}
	v, err := k.node.Status(ctx)
	if err != nil {
		return netip.AddrPort{}, err
	}
	standings, _ := n.standings()
	for i, nv := range v.Nodes {
		words := []string{nv.Name, string(nv.ID), strings.TrimSuffix(string(nv.ID), ":"+strconv.Itoa(gossipPort))}
		if !slices.Contains(words, w.Node) {
			continue
		}
		if i == 0 {
			return netip.AddrPort{}, control.Refuse(fmt.Sprintf("%s is the node that was asked; ask another one to remove it", w.Node))
		}
		// A drained node would not do: it holds where it hears nobody else.
		if nv.State != ha.Unheard && standings[nv.Name].State != "standby" {
			return netip.AddrPort{}, control.Refuse(fmt.Sprintf("%s is up; `hactl standby %s` first, and stop proxyd there when it is removed", nv.Name, nv.Name))
		}
		w.Without = append(w.Without, nv.Name)
		return netip.ParseAddrPort(string(nv.ID))
	}
	_, _, err = n.findNode(ctx, k, w.Node)
	return netip.AddrPort{}, err
}

// applyVoters gives every node another list of voters.
func (n *node) applyVoters(ctx context.Context, w control.MemberWish, voters []netip.AddrPort, comment string) (*control.Applied, error) {
	a := control.Apply{CanaryMS: w.CanaryMS, DryRun: w.DryRun, By: w.By, Without: w.Without, Comment: comment}
	p := &application{request: a, voters: voters}
	if need := n.newHostNeeds(); need != "" && w.Op != "remove" {
		p.warnings = append(p.warnings, need)
	}
	return n.applyAll(ctx, p)
}

// newHostNeeds says what a host that is added must have beside the configuration and
// cluster.secret, "" if nothing: since a rotation the ring of keys goes before the secret.
func (n *node) newHostNeeds() string {
	k, _, _ := n.part()
	n.mu.Lock()
	secret, dir := string(n.config.Cluster.Secret), n.config.Node.State
	n.mu.Unlock()
	if k == nil || k.keys == nil || k.keys.Secrets()[0] == secret {
		return ""
	}
	return fmt.Sprintf("the keys were rotated since cluster.secret was written: before proxyd is started on the new host, copy %s of this one into node.state there, "+
		"readable by proxyd alone (install -m 0600 -o proxyd -g proxyd keys.json /var/lib/proxyd/), or restore a backup with its secrets", filepath.Join(dir, keyring.File))
}

// awaitAll waits until every voter is heard again after a change of their list.
func (n *node) awaitAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, missingTime)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if k, _, _ := n.part(); k != nil {
			if v, err := k.node.Status(ctx); err == nil && !slices.ContainsFunc(v.Nodes, func(nv ha.NodeView) bool { return nv.State == ha.Unheard }) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not every node is heard: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
