package ha

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/detect"
	"proxyd/internal/ha/election"
)

// State is what a node says it can do.
type State uint8

const (
	Up       State = iota
	Draining       // it is leaving
	Unfit          // it could not serve
	Unheard        // of others: what it can do is not known
)

func (s State) String() string { return [...]string{"up", "draining", "unfit", "unheard"}[s] }

// View is the cluster as one node sees it at one instant.
type View struct {
	Nodes    []NodeView // this node first
	VIPs     []VIPView  // by name
	Arbiters []ArbiterView
	Problems []string // what the nodes do not agree on
	Stats    Stats
}

// NodeView is one voter.
type NodeView struct {
	ID      election.ID
	Name    string
	Witness bool // it votes and never holds
	State   State
	Reason  string        // why it is not up
	Last    bool          // it drains, and holds all the same where nobody else can
	Ill     election.Ill  // how far from being fit, of this node alone
	Age     time.Duration // since it was last heard; 0 for this node, -1 never
	Config  string        // hash
	Version string
	Uptime  time.Duration
	Longest time.Duration // silence between two of its beats, within the last 24 hours
	Limit   time.Duration // the silence after which it is judged lost
	Flaps   float64       // how often it failed lately, as this node saw: each counts one and fades
	Suspect bool          // it is heard, and was silent for more than half of the limit
	Left    bool          // it is unheard, and had said that it leaves
	Damped  bool          // so often that others are preferred
	Path    PathView
	Signs   Signs // of life, as the mesh has them; none of this node
	Newest  uint8 // version of the wire that it speaks; 0: not heard yet
}

// VIPView is one virtual address.
type VIPView struct {
	Name    string
	Holders []string // by name; none, one, or two after a cut
	IDs     []election.ID
	Here    bool // this node holds it
	Term    uint64
	Held    time.Duration              // for how long
	Lease   time.Duration              // left, if this node holds it
	Fault   string                     // why this node could not hold it
	Faults  map[string]string          // why others could not, by name
	Changes map[election.Reason]uint64 // how often this node became the holder
	Standby bool                       // another node could take it over now
	Unheld  time.Duration              // in which this node knew of no holder, since this loop began
	Prefer  []election.ID              // the order of the candidates, the best first
	Chosen  bool                       // an operator moved it here, and it stays until the holder fails
	Sole    bool                       // this node, of two, holds it without the other's vote
	Drains  []DrainView                // who still serves older connections
}

// Stats counts what the loop met.
type Stats struct {
	Stalls       uint64            // times that this node slept for longer than a lease
	LongestStall time.Duration     // how late the loop ever was
	Gone         uint64            // processes of others that ended
	BadFrames    uint64            // frames that could not be read
	Suspicions   uint64            // times that a node was taken for lost
	Refutations  uint64            // of those it turned out to have lived
	NearMisses   uint64            // silences of more than half of what is borne
	Messages     map[string]uint64 // records that came, by kind
	Foreign      uint64            // times that a voter began to speak with another key
}

// Status returns the cluster as this node sees it now.
func (n *Node) Status(ctx context.Context) (View, error) {
	var v View
	err := n.ask(ctx, func(now clock.Instant) { v = n.view(now) })
	return v, err
}

// Changes returns the latest changes of holders, the oldest first.
func (n *Node) Changes(ctx context.Context) ([]Change, error) {
	var c []Change
	err := n.ask(ctx, func(clock.Instant) { c = n.history.all() })
	return c, err
}

func (n *Node) view(now clock.Instant) View {
	v := View{Stats: n.counted(), Problems: n.problems(), Arbiters: n.arbiterViews(now)}
	v.Nodes = append(v.Nodes, NodeView{ID: n.Self, Name: n.Name, Witness: n.Witness, Last: n.wish.last, State: n.state, Reason: n.reason, Ill: n.ill,
		Config: n.Hash, Version: n.Version, Uptime: n.Uptime(), Flaps: n.flaps.value(now), Damped: n.flaps.damped, Newest: n.Wire.Newest})
	for _, p := range n.peers {
		v.Nodes = append(v.Nodes, n.nodeView(now, p))
	}
	for _, name := range slices.Sorted(maps.Keys(n.byVIP)) {
		v.VIPs = append(v.VIPs, n.vipView(now, name))
	}
	return v
}

// counted returns the counters, with the records by their names.
func (n *Node) counted() Stats {
	s := n.stats
	s.Messages = map[string]uint64{}
	for kind, name := range map[recordKind]string{helloRecord: "hello", tenureRecord: "tenure", electionRecord: "election",
		requestRecord: "request", noteRecord: "note", pulseRecord: "pulse"} {
		s.Messages[name] = n.records[kind]
	}
	return s
}

func (n *Node) nodeView(now clock.Instant, p *peer) NodeView {
	v := NodeView{ID: p.id, Name: n.nameOf(p.id), Witness: p.hello.Witness, Last: p.hello.Last, State: p.hello.State, Reason: p.hello.Reason, Age: -1,
		Config: p.hello.Config, Version: p.hello.Version, Uptime: p.hello.Uptime,
		Longest: p.longest.longest(now), Limit: detect.Limit(n.Timing.Heartbeat), Signs: n.Mesh.Signs(p.id),
		Flaps: p.flaps.value(now), Damped: p.flaps.damped, Path: p.pathView(now), Newest: p.newest}
	if p.heard != 0 {
		v.Age = max(now.Sub(p.heard), 0)
	}
	v.Suspect = p.alive && v.Age > v.Limit/2
	v.Left = !p.alive && p.hello.State == Draining && p.hello.Reason == leaves
	if !p.alive {
		v.State, v.Reason = Unheard, p.why
	}
	return v
}

func (n *Node) vipView(now clock.Instant, name string) VIPView {
	e := n.byVIP[name]
	v := VIPView{Name: name, Here: e.held, Fault: e.fault, Changes: maps.Clone(e.changes), Term: e.term,
		Unheld: e.unheld.until(now), Prefer: slices.Clone(e.order), Drains: n.drains(now, e, name)}
	if e.held {
		v.Holders, v.IDs = append(v.Holders, n.Name), append(v.IDs, n.Self)
		v.Held, v.Lease = now.Sub(e.since), max(e.until.Sub(now), 0)
		m := e.machine.View()
		v.Chosen, v.Sole = m.Chosen, m.Sole
	}
	for _, p := range n.peers {
		t := p.tenures[e.name]
		if t.Fault != "" && p.alive {
			if v.Faults == nil {
				v.Faults = map[string]string{}
			}
			v.Faults[n.nameOf(p.id)] = t.Fault
		}
		if !t.Holds {
			v.Standby = v.Standby || p.able()
			continue
		}
		v.Holders, v.IDs = append(v.Holders, n.nameOf(p.id)), append(v.IDs, p.id)
		v.Term = max(v.Term, t.Term)
		v.Chosen = v.Chosen || t.Chosen
		if !e.held {
			v.Held = t.Held + max(now.Sub(p.heard), 0)
		}
	}
	v.Standby = v.Standby || !e.held && n.fit(e)
	return v
}

// problems lists what the nodes do not agree on.
func (n *Node) problems() []string {
	var out []string
	names := map[string]election.ID{n.Name: n.Self}
	for _, p := range n.peers {
		if !p.alive || p.hello.Name == "" {
			continue
		}
		if other, double := names[p.hello.Name]; double {
			out = append(out, fmt.Sprintf("two nodes are named %q: %s and %s", p.hello.Name, other, p.id))
		}
		names[p.hello.Name] = p.id
		if p.hello.Voters != fingerprint(n.Voters) {
			out = append(out, fmt.Sprintf("%s has another cluster.join than %s", p.hello.Name, n.Name))
		} else if p.hello.Config != n.Hash && !p.hello.Witness && !n.Witness {
			out = append(out, fmt.Sprintf("%s has another configuration (%s) than %s (%s)", p.hello.Name, p.hello.Config, n.Name, n.Hash))
		}
	}
	return out
}
