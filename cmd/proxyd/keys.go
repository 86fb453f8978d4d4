package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/keyring"
	"proxyd/internal/history"
)

// askKeys is what nodes ask each other about their keys; the body is a keyring.Question.
const askKeys = "keys"

const (
	// keysAsk bounds one question of a rotation.
	keysAsk = 4 * time.Second
	// keysSettle is how long what was sealed with the old key may be on its way.
	keysSettle = time.Second
)

// openKeys opens the ring of this node.
func (k *cluster) openKeys(c *config.Config, voters []election.ID) (*keyring.Keeper, error) {
	var names []string
	for _, v := range voters {
		names = append(names, string(v))
	}
	return keyring.Open(keyring.Config{Dir: c.Node.State, Secret: string(c.Cluster.Secret), Voters: names, Now: time.Now, Log: k.log, Force: k.forceKeys})
}

// forceKeys puts secrets in force in all that goes between the nodes.
func (k *cluster) forceKeys(secrets []string) error {
	return errors.Join(k.gossip.SetSecrets(secrets), k.mesh.SetSecrets(secrets))
}

// sameKeys reports whether the keys in force stay with c.
func (k *cluster) sameKeys(c *config.Config) bool {
	return k.now().config.Cluster.Secret == c.Cluster.Secret || k.keys != nil && k.keys.Knows(string(c.Cluster.Secret))
}

// serveKeys does what a rotation asks of this node.
func (n *node) serveKeys(q keyring.Question) (keyring.Answer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cluster == nil || n.cluster.keys == nil {
		return keyring.Answer{}, control.Refuse("this node has no cluster")
	}
	if n.succeeding && q.Do != keyring.Look {
		return keyring.Answer{}, control.Refuse(errSucceeding.Error())
	}
	a, err := n.cluster.keys.Answer(q)
	if err != nil {
		return a, control.Refuse(err.Error())
	}
	switch q.Do {
	case keyring.Accept, keyring.Use, keyring.Keep:
		n.acme.Look() // what the key before has sealed is sealed anew while that is still believed
		n.log.Info("keys of the cluster", "step", q.Do, "asked", q.By, "seals", a.Keys[0].Mark, "believed", len(a.Keys))
	}
	return a, nil
}

// keyNodes returns the cluster part and how it sees the nodes.
func (n *node) keyNodes(ctx context.Context) (*cluster, ha.View, error) {
	k, _, _ := n.part()
	if k == nil || k.keys == nil {
		return nil, ha.View{}, control.Refuse("this node has no cluster, and no keys")
	}
	v, err := k.node.Status(ctx)
	return k, v, err
}

// Keys implements control.Operator.
func (n *node) Keys(ctx context.Context) (*control.Keys, error) {
	_, v, err := n.keyNodes(ctx)
	if err != nil {
		return nil, err
	}
	answers := make([]keyring.Answer, len(v.Nodes))
	out := &control.Keys{Keys: []control.Key{}, Settled: true}
	out.Nodes = make([]control.KeyNode, len(v.Nodes))
	done := make(chan struct{})
	for i, nv := range v.Nodes {
		go func() { // ends within keysAsk
			defer func() { done <- struct{}{} }()
			ctx, cancel := context.WithTimeout(ctx, keysAsk)
			defer cancel()
			a, err := askPeer[keyring.Answer](ctx, n, nv.ID, askKeys, keyring.Question{Do: keyring.Look})
			out.Nodes[i] = control.KeyNode{Node: nv.Name, Secret: a.Secret}
			if err != nil {
				out.Nodes[i].Error = err.Error()
			}
			answers[i] = a
		}()
	}
	for range v.Nodes {
		<-done
	}
	for i, a := range answers {
		name := v.Nodes[i].Name
		out.Settled = out.Settled && len(a.Keys) == 1
		for j, h := range a.Keys {
			at := slices.IndexFunc(out.Keys, func(key control.Key) bool { return key.Mark == h.Mark })
			if at < 0 {
				at, out.Keys = len(out.Keys), append(out.Keys, control.Key{Mark: h.Mark, Number: h.Number, Since: h.Since, Seals: []string{}, Belief: []string{}})
			}
			key := &out.Keys[at]
			key.Belief = append(key.Belief, name)
			if j == 0 {
				key.Seals = append(key.Seals, name)
			}
		}
	}
	slices.SortFunc(out.Keys, func(a, b control.Key) int {
		if a.Number != b.Number {
			return int(b.Number) - int(a.Number)
		}
		return strings.Compare(a.Mark, b.Mark)
	})
	out.Settled = out.Settled && len(out.Keys) == 1
	return out, nil
}

// RotateKeys implements control.Operator.
func (n *node) RotateKeys(ctx context.Context, w control.KeysWish) (*control.KeysRotated, error) {
	began := time.Now()
	r, err := n.rotate(ctx, w)
	e := history.Entry{Kind: history.Keys, Reason: "asked for by " + w.By}
	result := "ok"
	switch {
	case errors.Is(err, keyring.ErrUnfinished):
		result, e.Text = "unfinished", err.Error()
		err = control.TimedOut(err.Error())
	case err != nil:
		result, e.Text = "refused", err.Error()
		if !errors.Is(err, control.ErrRefused) {
			err = control.Refuse(err.Error() + "; nothing was changed")
		}
	default:
		e.Text = fmt.Sprintf("key %s is in force on every node, and %s is dropped", r.Key.Mark, strings.Join(r.Dropped, ", "))
		r.MS = milliseconds(time.Since(began))
	}
	e.Text = result + ": " + e.Text
	n.rotations.WithLabelValues(result).Inc()
	n.record.note(e)
	n.log.Info("keys of the cluster rotated", "result", result, "by", w.By, "text", e.Text)
	return r, err
}

func (n *node) rotate(ctx context.Context, w control.KeysWish) (*control.KeysRotated, error) {
	k, v, err := n.keyNodes(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	rotation := &keyring.Rotation{By: w.By + " on " + n.nodeName(), Now: time.Now, Settle: keysSettle}
	for _, nv := range v.Nodes {
		if nv.State == ha.Unheard {
			return nil, control.Refuse(fmt.Sprintf("%s is not heard (%s), and every node must have the new key before any uses it: bring it back, or `hactl member remove %s`", nv.Name, nv.Reason, nv.Name))
		}
		names[string(nv.ID)] = nv.Name
		if nv.ID != k.node.Self {
			rotation.Nodes = append(rotation.Nodes, string(nv.ID))
		}
	}
	// This one first: should it fall, it has no key that it alone knows of.
	rotation.Nodes = append([]string{string(k.node.Self)}, rotation.Nodes...)
	rotation.Ask = func(ctx context.Context, node string, q keyring.Question) (keyring.Answer, error) {
		ctx, cancel := context.WithTimeout(ctx, keysAsk)
		defer cancel()
		return askPeer[keyring.Answer](ctx, n, election.ID(node), askKeys, q)
	}
	did, err := rotation.Run(ctx)
	if err != nil {
		return nil, err
	}
	all := []string{}
	for _, node := range rotation.Nodes {
		all = append(all, names[node])
	}
	return &control.KeysRotated{Key: control.Key{Mark: did.Key.Mark, Number: did.Key.Number, Since: did.Key.Since, Seals: all, Belief: all},
		Dropped: did.Before, Resumed: did.Resumed}, nil
}
