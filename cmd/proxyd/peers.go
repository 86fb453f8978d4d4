package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/control"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/keyring"
)

// A question is what one node asks another, in JSON, by Gossip.Ask.
type question struct {
	What string          `json:"what"`
	Body json.RawMessage `json:"body,omitempty"`
}

// A reply is what comes back.
type reply struct {
	Error string          `json:"error,omitempty"`
	Kind  string          `json:"kind,omitempty"` // refused, invalid or ""
	Body  json.RawMessage `json:"body,omitempty"`
}

// peerTime bounds what one node does for another.
const peerTime = 30 * time.Second

// answerPeer implements gossip.Config.Answer: what comes here has the key of the cluster.
func (n *node) answerPeer(from election.ID, b []byte) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), peerTime)
	defer cancel()
	var q question
	var out any
	err := json.Unmarshal(b, &q)
	if err == nil {
		out, err = n.serve(ctx, from, q)
	}
	r := reply{}
	if err == nil {
		r.Body, err = json.Marshal(out)
	}
	if err != nil {
		r = reply{Error: err.Error()}
		switch {
		case errors.Is(err, control.ErrRefused):
			r.Kind = "refused"
		case errors.Is(err, control.ErrInvalid):
			r.Kind = "invalid"
		}
	}
	text, _ := json.Marshal(r) // it holds nothing that cannot be written
	return text
}

// serve does what another node asks for. What it does not know is an error, so that a
// later release may ask more.
func (n *node) serve(ctx context.Context, _ election.ID, q question) (any, error) {
	switch q.What {
	case "health":
		return n.health(), nil
	case askLock, askCheck, askActivate, askLook, askCommit, askUndo:
		var in applyQuestion
		if err := json.Unmarshal(q.Body, &in); err != nil {
			return nil, control.Refuse(fmt.Sprintf("%s: %v", q.What, err))
		}
		return n.serveApply(q.What, in)
	case askTake:
		var in []byte
		if err := json.Unmarshal(q.Body, &in); err != nil {
			return nil, control.Refuse(fmt.Sprintf("%s: %v", q.What, err))
		}
		return struct{}{}, n.serveTake(in)
	case askRenew:
		var in string
		if err := json.Unmarshal(q.Body, &in); err != nil {
			return nil, control.Refuse(fmt.Sprintf("%s: %v", q.What, err))
		}
		return n.serveRenew(ctx, in)
	case askKeys:
		var in keyring.Question
		if err := json.Unmarshal(q.Body, &in); err != nil {
			return nil, control.Refuse(fmt.Sprintf("%s: %v", q.What, err))
		}
		return n.serveKeys(in)
	}
	return nil, control.Refuse(fmt.Sprintf("this node, version %s, does not know %q", version, q.What))
}

// askPeer asks a node something, this one too.
func askPeer[Out any](ctx context.Context, n *node, to election.ID, what string, in any) (Out, error) {
	var out Out
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	q := question{What: what, Body: body}
	k, _, _ := n.part()
	if k == nil || k.gossip == nil || k.node.Self == to {
		got, err := n.serve(ctx, to, q)
		if err != nil {
			return out, err
		}
		if body, err = json.Marshal(got); err != nil {
			return out, err
		}
		return out, json.Unmarshal(body, &out)
	}
	text, err := json.Marshal(q)
	if err != nil {
		return out, err
	}
	got, err := k.gossip.Ask(ctx, to, text)
	if err != nil {
		return out, err
	}
	var r reply
	if err := json.Unmarshal(got, &r); err != nil {
		return out, fmt.Errorf("answer of %s: %w", to, err)
	}
	switch {
	case r.Kind == "refused":
		return out, control.Refuse(r.Error)
	case r.Kind == "invalid":
		return out, control.Invalid(r.Error)
	case r.Error != "":
		return out, errors.New(r.Error)
	}
	if err := json.Unmarshal(r.Body, &out); err != nil {
		return out, fmt.Errorf("answer of %s: %w", to, err)
	}
	return out, nil
}

// A health is how a node does, as it says itself.
type health struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Config   string `json:"config"` // hash
	Ready    bool   `json:"ready"`
	Why      string `json:"why,omitempty"`   // not
	Unfit    string `json:"unfit,omitempty"` // why it could not serve if it held a VIP
	Active   int64  `json:"active"`          // exchanges in progress on servers
	Requests uint64 `json:"requests"`        // that ended
	Failed   uint64 `json:"failed"`          // of these, with a status of 500 or more
	Up       int    `json:"up"`              // servers
	Servers  int    `json:"servers"`
}

func (n *node) health() health {
	h := health{Version: version}
	n.mu.Lock()
	h.Name, h.Config = n.config.Node.Name, n.config.Hash
	k := n.cluster
	n.mu.Unlock()
	if k != nil {
		h.Unfit = k.unfit()
	}
	h.Ready, h.Why = n.plane.Ready()
	for _, p := range n.plane.Pools() {
		for _, s := range p.Servers {
			h.Active += s.Active
			h.Servers++
			if s.State == "up" {
				h.Up++
			}
		}
	}
	h.Requests, h.Failed = n.traffic()
	return h
}

// traffic counts the requests that ended here, and those that failed.
func (n *node) traffic() (all, failed uint64) {
	r := prometheus.NewRegistry()
	r.MustRegister(n.plane)
	families, err := r.Gather()
	if err != nil {
		return 0, 0
	}
	for _, f := range families {
		if f.GetName() != "proxyd_http_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			count := uint64(m.GetCounter().GetValue())
			all += count
			for _, l := range m.GetLabel() {
				if code, err := strconv.Atoi(l.GetValue()); l.GetName() == "code" && err == nil && code >= 500 {
					failed += count
				}
			}
		}
	}
	return all, failed
}

// healthOf asks a node, known by its name, how it does.
func (n *node) healthOf(ctx context.Context, k *cluster, name string) (health, error) {
	if k == nil || name == n.nodeName() {
		return n.health(), nil
	}
	v, err := k.node.Status(ctx)
	if err != nil {
		return health{}, err
	}
	for _, nv := range v.Nodes {
		if nv.Name == name {
			return askPeer[health](ctx, n, nv.ID, "health", nil)
		}
	}
	return health{}, fmt.Errorf("there is no node %q", name)
}
