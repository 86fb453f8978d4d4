package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/ha"
	"proxyd/internal/vip"
)

var _ control.Operator = (*node)(nil)

// part returns the cluster part and the configuration in force.
func (n *node) part() (*cluster, string, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cluster, n.config.Cluster.Name, n.config.Hash
}

// wishes returns the overrides in force and why they are not on the disk, if so.
func (n *node) wishes() ([]control.Override, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return list(n.overrides.wanted(n.config)), n.overrides.unsaved
}

// Status implements control.Operator.
func (n *node) Status(ctx context.Context) (*control.Status, error) {
	k, name, hash := n.part()
	kept, unsaved := n.wishes()
	s := &control.Status{Cluster: name, Health: "healthy", Reasons: []string{}, Node: n.nodeName(), Config: hash, Since: n.started, VIPs: []control.VIPStatus{}, Overrides: kept, Arbiters: []control.ArbiterStatus{}}
	s.Tracks = n.trackStatus()
	s.Upgrade = n.upgradeStatus()
	s.Overload = control.Overload(n.plane.Load())
	if s.Overload.Shedding {
		worsen(s, "degraded", sheds(n.plane.Load()))
	}
	if unsaved != nil {
		worsen(s, "degraded", unsaved.Error())
	}
	if h := n.record.ring.Stats(); h.Fault != "" {
		worsen(s, "degraded", fmt.Sprintf("what happens is not kept over a restart: %s (%d failures)", h.Fault, h.Errors))
	}
	if k == nil {
		s.Nodes = []control.NodeStatus{{Name: s.Node, State: "up", Config: hash, Version: version, UptimeS: int64(time.Since(n.started).Seconds())}}
		if ok, why := n.plane.Ready(); !ok {
			s.Nodes[0].State, s.Nodes[0].Reason = "unfit", why
			worsen(s, "degraded", why)
		}
		standings, _ := n.standings()
		if w, ok := standings[s.Node]; ok {
			s.Nodes[0].State, s.Nodes[0].Reason, s.Nodes[0].Standing = "draining", standingText(w), &w
			worsen(s, "degraded", s.Nodes[0].Reason)
		}
		return s, nil
	}
	v, err := k.node.Status(ctx)
	if err != nil {
		return nil, err
	}
	standings, paused := n.standings()
	if s.Paused = paused; paused != nil {
		worsen(s, "degraded", "paused: no VIP moves by preference or fitness, since "+paused.Since.Format(time.RFC3339)+inBrackets(paused.Reason))
	}
	for _, nv := range v.Nodes {
		s.Nodes = append(s.Nodes, withStanding(nodeStatus(nv), nv, standings))
		if nv.State != ha.Up {
			worsen(s, "degraded", fmt.Sprintf("node %s is %v%s", nv.Name, nv.State, inBrackets(nv.Reason)))
		}
	}
	for _, p := range v.Problems {
		worsen(s, "degraded", p)
	}
	for _, a := range v.Arbiters {
		s.Arbiters = append(s.Arbiters, arbiterStatus(a))
		if !a.OK && a.Reason != "" {
			worsen(s, "degraded", fmt.Sprintf("arbiter %s does not answer", a.Addr))
		}
	}
	for _, vv := range v.VIPs {
		s.VIPs = append(s.VIPs, n.vipStatus(k, v, vv))
		switch {
		case len(vv.Holders) == 0:
			worsen(s, "failed", fmt.Sprintf("vip %s has no holder", vv.Name))
		case len(vv.Holders) > 1:
			worsen(s, "failed", fmt.Sprintf("vip %s is held by %v", vv.Name, vv.Holders))
		case !vv.Standby:
			worsen(s, "degraded", fmt.Sprintf("vip %s has no fit standby", vv.Name))
		}
		for _, nv := range v.Nodes {
			if nv.State == ha.Draining && slices.Contains(vv.IDs, nv.ID) {
				worsen(s, "degraded", fmt.Sprintf("vip %s is held by %s, which an operator took out: nobody else can hold it", vv.Name, nv.Name))
			}
		}
		if f := s.VIPs[len(s.VIPs)-1].Fence; f != nil && f.Fault != "" {
			worsen(s, "degraded", fmt.Sprintf("vip %s has no fence: %s", vv.Name, f.Fault))
		}
		for _, node := range slices.Sorted(maps.Keys(s.VIPs[len(s.VIPs)-1].Faults)) {
			worsen(s, "degraded", fmt.Sprintf("vip %s: %s could not hold it: %s", vv.Name, node, s.VIPs[len(s.VIPs)-1].Faults[node]))
		}
	}
	s.Last = k.shared.last(time.Now())
	return s, nil
}

func (n *node) nodeName() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.config.Node.Name
}

// place returns the name of the node and where it is.
func (n *node) place() (name, zone string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.config.Node.Name, n.config.Node.Zone
}

// worsen notes a reason, and health if that is worse than what was known.
func worsen(s *control.Status, health, reason string) {
	order := []string{"healthy", "degraded", "failed"}
	if slices.Index(order, health) > slices.Index(order, s.Health) {
		s.Health = health
	}
	s.Reasons = append(s.Reasons, reason)
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func arbiterStatus(v ha.ArbiterView) control.ArbiterStatus {
	age := v.Age.Milliseconds()
	if v.Age < 0 {
		age = -1
	}
	return control.ArbiterStatus{Address: v.Addr.String(), OK: v.OK, AgeMS: age, Reason: v.Reason}
}

func nodeStatus(v ha.NodeView) control.NodeStatus {
	age := v.Age.Milliseconds()
	if v.Age < 0 {
		age = -1
	}
	var paths []control.Path
	for _, p := range v.Signs.Paths {
		age := p.Age.Milliseconds()
		if p.Age < 0 {
			age = -1
		}
		paths = append(paths, control.Path{Name: p.Name, AgeMS: age, LongestGapMS: p.Longest.Milliseconds(), Loss: p.Loss, Silent: p.Silent})
	}
	s := control.NodeStatus{
		Name: v.Name, Witness: v.Witness, State: v.State.String(), Address: string(v.ID), AgeMS: age, Config: v.Config, Version: v.Version, Wire: int(v.Newest),
		UptimeS: int64(v.Uptime.Seconds()), Reason: v.Reason, LongestGapMS: v.Longest.Milliseconds(), LimitMS: v.Limit.Milliseconds(), Flaps: math.Round(v.Flaps*100) / 100, Damped: v.Damped,
		Paths: paths, NearMisses: v.Signs.NearMisses,
	}
	if p := v.Path; p.RTT > 0 {
		trip, skew := milliseconds(p.RTT), milliseconds(p.Skew)
		s.RoundTripMS, s.ClockSkewMS = &trip, &skew
		if p.LossIn >= 0 {
			s.LossIn = &p.LossIn
		}
		if p.LossOut >= 0 {
			s.LossOut = &p.LossOut
		}
	}
	return s
}

// withStanding shows what an operator wants of a node beside what the node says.
func withStanding(s control.NodeStatus, v ha.NodeView, standings map[string]control.Standing) control.NodeStatus {
	w, ok := standings[v.Name]
	if !ok {
		w, ok = standings[string(v.ID)]
	}
	if !ok {
		return s
	}
	s.Standing = &w
	if w.State == "standby" && v.State == ha.Draining {
		s.State = "standby"
	}
	return s
}

// vipStatus is what is known of one VIP now. Where another node holds it, that is as old
// as what was last heard of that node.
func (n *node) vipStatus(k *cluster, all ha.View, v ha.VIPView) control.VIPStatus {
	s := control.VIPStatus{
		Draining: drains(v),
		Name:     v.Name, Term: v.Term, LeaseMS: v.Lease.Milliseconds(), Chosen: v.Chosen, Sole: v.Sole,
		Holders: append([]string{}, v.Holders...),
	}
	if c := k.now().config.VIP[v.Name]; c != nil { // a witness need not know it
		s.Address, s.Interface = c.Address.Addr().String(), c.Interface
	}
	if len(v.Holders) > 0 {
		s.Holder = &v.Holders[0]
		since := time.Now().Add(-v.Held).UTC().Truncate(time.Millisecond)
		s.Since = &since
	}
	s.Faults = maps.Clone(v.Faults)
	if v.Fault != "" {
		if s.Faults == nil {
			s.Faults = map[string]string{}
		}
		s.Faults[all.Nodes[0].Name] = v.Fault
	}
	s.UnheldS = n.record.unheld(k.node, v).Seconds()
	for _, id := range v.Prefer {
		s.Prefer = append(s.Prefer, nameIn(all, id))
	}
	for _, nv := range all.Nodes {
		if len(v.IDs) > 0 && nv.ID == v.IDs[0] {
			s.AgeMS = nv.Age.Milliseconds()
		}
	}
	if keeper := k.now().keepers[v.Name]; keeper != nil {
		s.Conflicts = keeper.Stats.Conflicts.Load()
		s.Fence = k.fence(s.Interface)
		if at := keeper.Status(); at.State == vip.Parked {
			until := wall(at.Until).UTC().Truncate(time.Millisecond)
			s.DrainingUntil = &until
		}
		if last := keeper.Stats.LastAnnounced(); last != 0 && v.Here {
			at := time.Now().Add(-clock.Now().Sub(last)).UTC().Truncate(time.Millisecond)
			s.Announced = &at
		}
	}
	return s
}

// fence returns the state of an interface's fence, nil if it has none.
func (k *cluster) fence(device string) *control.Fence {
	d := k.devices[device]
	if d == nil || d.Fence() == nil {
		return nil
	}
	v := d.Fence().Status()
	f := &control.Fence{Kind: string(v.Kind), Means: v.Means, Token: v.Token, Worse: v.Worse}
	if v.Fault != nil {
		f.Fault = v.Fault.Error()
	}
	return f
}

// Pools implements control.Operator.
func (n *node) Pools(context.Context) ([]control.Pool, error) {
	pools := []control.Pool{}
	for _, p := range n.plane.Pools() {
		pool := control.Pool{Name: p.Name, Balance: p.Balance, HashKey: p.HashKey, Sticky: p.Sticky, Queue: p.Queue, Waiting: p.Waiting, Servers: []control.Server{}}
		for _, s := range p.Servers {
			pool.Servers = append(pool.Servers, control.Server{
				Name: s.Name, Address: s.Address, State: s.State, Weight: s.Weight, Wanted: s.Wanted, Backup: s.Backup, Share: s.Share, Zone: s.Zone, MaxConns: s.MaxConns,
				Active: s.Active, Requests: s.Requests, Failures: s.Failures, Reason: s.Reason,
			})
		}
		pools = append(pools, pool)
	}
	return pools, nil
}

// Certificates implements control.Operator.
func (n *node) Certificates(context.Context) ([]control.Certificate, error) {
	all := []control.Certificate{}
	views := map[string]*control.ACME{}
	var order []string
	for _, v := range n.acme.Views() {
		order = append(order, v.Name)
		views[v.Name] = &control.ACME{Directory: v.Directory, Pending: v.NotAfter.IsZero(), Renew: v.Renew.UTC(), Ordering: v.Ordering, Failures: v.Failures, Error: v.Error, Next: v.Next}
	}
	for i, c := range n.plane.Certificates() {
		x := control.Certificate{
			Subject: c.Subject, Names: append([]string{}, c.Names...), Serial: c.Serial, Issuer: c.Issuer, Kind: c.Kind, Source: c.Source(),
			From: c.NotBefore.UTC(), Until: c.NotAfter.UTC(), Cert: c.Cert, Key: c.Key, Default: i == 0, Fault: c.Fault, Warnings: append([]string{}, c.Doubts...),
		}
		if x.Source == "acme" {
			x.ACME = views[c.Subject]
		}
		all = append(all, x)
	}
	for _, name := range order {
		if v := views[name]; v.Pending {
			all = append(all, control.Certificate{Subject: name, Names: []string{name}, Source: "acme", Warnings: []string{}, ACME: v})
		}
	}
	return all, nil
}

// Config implements control.Operator.
func (n *node) Config(context.Context) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.config.Effective(), nil
}

// Reload implements control.Operator.
func (n *node) Reload(context.Context) (*control.Reload, error) {
	r, err := n.reload()
	n.tell("hactl", r, err)
	return r, err
}

// Explain implements control.Operator.
func (n *node) Explain(_ context.Context, q control.Question) (json.RawMessage, error) {
	e, err := n.plane.Explain(proxy.Question(q))
	if bad := (proxy.BadQuestion{}); errors.As(err, &bad) {
		return nil, control.Invalid(err.Error())
	} else if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// Version implements control.Operator.
func (n *node) Version(context.Context) (*control.Version, error) {
	b := build()
	return &b, nil
}

// Failover implements control.Operator.
func (n *node) Failover(ctx context.Context, f control.Failover) (*control.FailoverResult, error) {
	k, _, _ := n.part()
	if k == nil {
		return nil, control.Refuse("this node has no cluster and no VIP: there is nothing to hand over")
	}
	m, err := k.node.Failover(ctx, f.VIP, f.To, f.Reason)
	switch {
	case errors.Is(err, ha.ErrRefused):
		return nil, control.Refuse(err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return nil, control.TimedOut("the other node did not hold it in time: " + err.Error())
	case err != nil:
		return nil, err
	case len(m.VIPs) == 0:
		return nil, control.Refuse("nothing to hand over: every VIP is where it should go")
	}
	r := &control.FailoverResult{VIPs: m.VIPs, From: m.From, To: m.To, MS: float64(m.Took.Microseconds()) / 1000}
	k.awaitDrains(ctx, r)
	return r, nil
}
