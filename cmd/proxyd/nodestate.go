package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/control"
	"proxyd/internal/ha"
	"proxyd/internal/history"
)

// Kinds of the shared entries that say what operators want of nodes, by name, and of the
// whole cluster.
const (
	standingKind = "standing"
	pauseKind    = "pause"
	pauseKey     = "cluster"
)

// A stand is what of that was last put in force in this node's cluster part.
type stand struct {
	part   *cluster
	reason string
	last   bool // it holds where nobody else can
	paused bool
}

// handOverTime is how long SteerNode waits for a node to give away what it holds.
const handOverTime = 10 * time.Second

// SteerNode implements control.Operator.
func (n *node) SteerNode(ctx context.Context, w control.NodeWish) (*control.NodeSteered, error) {
	k, _, _ := n.part()
	name, view, err := n.findNode(ctx, k, w.Node)
	if err != nil {
		return nil, err
	}
	r := &control.NodeSteered{Moved: []string{}, Warnings: []string{}}
	switch w.State {
	case "drain", "standby":
		for _, v := range view.VIPs {
			if !slices.Contains(v.Holders, name) {
				continue
			}
			if r.Moved = append(r.Moved, v.Name); !v.Standby {
				return nil, control.Refuse(fmt.Sprintf("%s holds %s and no other node is fit for it; `hactl status` says why", name, v.Name))
			}
		}
		if len(view.Nodes) == 1 && w.State == "standby" {
			return nil, control.Refuse("this node has no cluster, in which another could hold anything")
		}
	case "online":
	default:
		return nil, control.Invalid(fmt.Sprintf("state %q: want drain, standby or online", w.State))
	}
	if w.ForMS < 0 || w.State != "standby" && w.ForMS != 0 {
		return nil, control.Invalid("a time is for standby alone, and positive")
	}
	r.Standing = control.Standing{Node: name, State: w.State, By: w.By, On: n.nodeName(), Reason: w.Reason, Since: time.Now().UTC().Truncate(time.Second)}
	err = n.putStanding(standingKind, name, &r.Standing, w.State == "online", w.ForMS)
	if err != nil {
		return nil, err
	}
	r.Warnings = append(r.Warnings, n.stand(true)...)
	n.record.note(history.Entry{Kind: history.Asked, To: name, Reason: w.State, Text: standingText(r.Standing)})
	n.log.Info("node steered", "node", name, "state", w.State, "by", w.By, "reason", w.Reason)
	if len(r.Moved) > 0 {
		if err := n.awaitHandOver(ctx, k, name); err != nil {
			return nil, err
		}
	}
	return r, n.awaitIdle(ctx, k, name, w, r)
}

// awaitHandOver waits until a node holds nothing.
func (n *node) awaitHandOver(ctx context.Context, k *cluster, name string) error {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var left []string
	for {
		v, err := k.node.Status(ctx)
		if err == nil {
			left = left[:0]
			for _, vip := range v.VIPs {
				if slices.Contains(vip.Holders, name) || len(vip.Holders) == 0 {
					left = append(left, vip.Name)
				}
			}
			if len(left) == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return control.TimedOut(fmt.Sprintf("%s has not yet handed over %s; it goes on trying", name, strings.Join(left, ", ")))
		case <-tick.C:
		}
	}
}

// awaitIdle waits until no exchange is in progress on a node, if that is wanted.
func (n *node) awaitIdle(ctx context.Context, k *cluster, name string, w control.NodeWish, r *control.NodeSteered) error {
	if w.State != "drain" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(time.Duration(w.WaitMS)*time.Millisecond, time.Second))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		h, err := n.healthOf(ctx, k, name)
		if err != nil {
			r.Warnings = append(r.Warnings, fmt.Sprintf("exchanges in progress on %s are not known: %v", name, err))
			return nil
		}
		if r.Active = h.Active; r.Active == 0 || w.WaitMS == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return control.TimedOut(fmt.Sprintf("%s: %d exchanges are still in progress on it", name, r.Active))
		case <-tick.C:
		}
	}
}

// findNode finds the node that an operator calls by its name or address.
func (n *node) findNode(ctx context.Context, k *cluster, words string) (string, ha.View, error) {
	if k == nil {
		if own := n.nodeName(); words == own {
			return own, ha.View{Nodes: []ha.NodeView{{Name: own}}}, nil
		}
		return "", ha.View{}, control.Refuse(fmt.Sprintf("there is no node %q; this one is %s and has no cluster", words, n.nodeName()))
	}
	v, err := k.node.Status(ctx)
	if err != nil {
		return "", v, err
	}
	var names []string
	for _, nv := range v.Nodes {
		if words == nv.Name || words == string(nv.ID) {
			return nv.Name, v, nil
		}
		names = append(names, nv.Name)
	}
	return "", v, control.Refuse(fmt.Sprintf("there is no node %q; there are %s", words, strings.Join(names, ", ")))
}

// Pause implements control.Operator.
func (n *node) Pause(_ context.Context, w control.PauseWish) (*control.Standing, error) {
	if k, _, _ := n.part(); k == nil {
		return nil, control.Refuse("this node has no cluster and no VIP: nothing moves here")
	}
	if w.ForMS < 0 || !w.On && w.ForMS != 0 {
		return nil, control.Invalid("a time is for pause alone, and positive")
	}
	s := control.Standing{State: "paused", By: w.By, On: n.nodeName(), Reason: w.Reason, Since: time.Now().UTC().Truncate(time.Second)}
	if !w.On {
		s.State = "running"
	}
	if err := n.putStanding(pauseKind, pauseKey, &s, !w.On, w.ForMS); err != nil {
		return nil, err
	}
	n.stand(true)
	n.record.note(history.Entry{Kind: history.Asked, Reason: s.State, Text: standingText(s)})
	n.log.Info("automatic moves", "state", s.State, "by", w.By, "reason", w.Reason)
	return &s, nil
}

// putStanding notes what an operator wants, or takes it back, and tells the other nodes.
func (n *node) putStanding(kind, key string, s *control.Standing, back bool, forMS int64) error {
	key = entryKey(key)
	if back {
		return n.shared.remove(0, kind, key, time.Now().Add(forgetAfter))
	}
	var end time.Time
	if forMS > 0 {
		end = time.Now().Add(time.Duration(forMS) * time.Millisecond).UTC()
		s.Until = &end
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return n.shared.put(0, kind, key, text, end)
}

// standings returns what operators want of nodes, by name, and of the cluster.
func (n *node) standings() (nodes map[string]control.Standing, paused *control.Standing) {
	nodes = map[string]control.Standing{}
	for _, e := range n.shared.kind(standingKind) {
		var s control.Standing
		// What another version wrote and this one cannot read is left out.
		if json.Unmarshal(e.Value, &s) == nil {
			nodes[s.Node] = s
		}
	}
	if e, ok := n.shared.get(pauseKind, pauseKey); ok {
		paused = new(control.Standing)
		if json.Unmarshal(e.Value, paused) != nil {
			paused = nil
		}
	}
	return nodes, paused
}

// stand puts in force what operators want of this node, and with keep writes all that they
// want to the disk. It says why not.
func (n *node) stand(keep bool) (warnings []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.standNow()
	if !keep {
		return nil
	}
	if err := n.shared.save(filepath.Join(n.config.Node.State, standingsFile), standingKind, pauseKind, generationKind); err != nil {
		n.log.Error("state directory", "error", err)
		warnings = append(warnings, fmt.Sprintf("it is in force and not kept over a restart: %v", err))
	}
	return warnings
}

// standingsFile is where what operators want of nodes is kept, in node.state.
const standingsFile = "standings.json"

// standNow puts in force what operators want of this node. n.mu is held.
func (n *node) standNow() {
	nodes, paused := n.standings()
	now := &stand{part: n.cluster, paused: paused != nil}
	var drained *string
	if s, ok := n.ownStanding(nodes); ok {
		now.reason = standingText(s)
		if s.State == "drain" {
			drained, now.last = &now.reason, true
		}
	}
	n.drained.Store(drained)
	if *now == n.stood {
		return
	}
	n.stood = *now
	if n.cluster != nil {
		n.cluster.node.Withhold(now.reason, now.last)
		n.cluster.node.Pause(now.paused)
	}
}

// ownStanding is what is wanted of this node, which others may know by its address alone.
// n.mu is held.
func (n *node) ownStanding(nodes map[string]control.Standing) (control.Standing, bool) {
	s, ok := nodes[n.config.Node.Name]
	if !ok && n.cluster != nil {
		s, ok = nodes[string(n.cluster.node.Self)]
	}
	return s, ok
}

// standingText says what is wanted of a node, by whom.
func standingText(s control.Standing) string {
	text := s.State + ", asked for by " + s.By + " on " + s.On
	if s.By == "" {
		text = s.State + ", asked for on " + s.On
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}

// ready says whether this node should be given clients, and if not, why not.
func (n *node) ready() (bool, string) {
	if why := n.drained.Load(); why != nil {
		return false, *why
	}
	return n.plane.Ready()
}

// followStandings puts in force what comes to its end, until ctx ends.
func (n *node) followStandings(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(clock.Next(time.Second)):
			n.stand(false)
		}
	}
}
