package main

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"proxyd/internal/dataplane/engine"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
)

// clusterMetrics turns what the cluster part counts into metrics, at each scrape.
type clusterMetrics struct{ node *node }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("proxyd_"+name, help, labels, nil)
}

// The metrics of the node and its cluster; METRICS in docs/OPERATIONS.md.
var (
	buildInfo    = desc("build_info", "The version that runs; always 1.", "version", "goversion")
	nodeInfo     = desc("node_info", "This node; always 1.", "node", "zone", "cluster")
	drift        = desc("cluster_config_drift", "Nodes that are heard and have another configuration than this one.", "cluster")
	members      = desc("cluster_members", "Voters by what this node thinks of them.", "cluster", "state")
	expected     = desc("cluster_expected_members", "Voters in cluster.join.", "cluster")
	dropped      = desc("cluster_messages_dropped_total", "Messages from the heartbeat port and gossip that were not believed, or came twice.", "cluster", "reason")
	gap          = desc("cluster_heartbeat_gap_seconds_max", "Longest silence of a peer within one life of it.", "cluster", "peer")
	silences     = desc("cluster_silences_total", "Times that a node was judged silent.", "cluster", "node")
	foreignKey   = desc("cluster_foreign_key", "1 while a node speaks with another key than this one's.", "cluster", "node")
	wireSpoken   = desc("cluster_wire_version", "The version of what nodes send each other that is spoken with a node; 0 while none is known that both understand.", "cluster", "node")
	pathAge      = desc("cluster_path_age_seconds", "Since a node was last heard on a path; -1 never.", "cluster", "node", "path")
	pathLoss     = desc("cluster_path_loss_ratio", "Part of a node's heartbeats on a path that did not arrive here.", "cluster", "node", "path")
	beatRealTime = desc("cluster_beat_realtime", "1 if the heartbeat's thread runs in real time (SCHED_FIFO).", "cluster")
	beatLate     = desc("cluster_beat_late_seconds_max", "The longest that the heartbeat's thread came too late.", "cluster")
	beatStalls   = desc("cluster_beat_stalls_total", "Times that the heartbeat's thread came more than two beats late.", "cluster")
	keysDesc     = desc("cluster_keys", "Keys that this node believes; more than one while a rotation is not finished.", "cluster")
	pausedDesc   = desc("cluster_paused", "1 while no VIP moves by preference or fitness, by an operator's wish.", "cluster")
	standingDesc = desc("node_standing", "1 while an operator wants this of the node.", "cluster", "node", "state")
	stalls       = desc("cluster_stalls_total", "Times that this node's cluster loop was asleep for longer than a lease.", "cluster")
	skew         = desc("cluster_clock_skew_seconds", "How much the other node's clock is ahead of this one's.", "cluster", "node")
	probe        = desc("cluster_probe_seconds", "Round trip of a beat to the other node and back, smoothed.", "cluster", "node")
	beatLoss     = desc("cluster_beat_loss_ratio", "Part of the beats that were lost in the last one to two minutes, on all carriers together.", "cluster", "node", "direction")
	suspicions   = desc("cluster_suspicions_total", "Times that another node was taken for lost.", "cluster")
	refutations  = desc("cluster_refutations_total", "Times that a node which was taken for lost turned out to live.", "cluster")
	nearMisses   = desc("cluster_near_misses_total", "Silences of another node of more than half of what is borne.", "cluster")
	messages     = desc("cluster_messages_total", "Records that came from other nodes.", "cluster", "kind")
	vipUnheld    = desc("vip_unheld_seconds_total", "Seconds in which this node knew of no holder, over its restarts: from the old holder's last sign of life on.", "cluster", "vip")
	historyFails = desc("history_errors_total", "Attempts to write the history to the disk that failed.")
	historyLost  = desc("history_lost_total", "Entries of the history that the disk never got.")
	notified     = desc("notify_total", "Notifications by what came of them; failed counts attempts, the rest events.", "kind", "result")
	nodeIll      = desc("node_ill", "How far this node is from being fit to hold: 0 fit, below 100 less fit than it should be, from 100 on unfit.", "cluster", "node")
	trackUp      = desc("track_up", "1 unless the track has failed.", "cluster", "track", "kind")
	trackChecks  = desc("track_checks_total", "Looks at a track by how they went.", "cluster", "track", "result")
	vipHolder    = desc("vip_holder", "1 if this node holds the address, else 0.", "cluster", "vip", "node")
	vipMoves     = desc("vip_transitions_total", "Times that this node became the holder.", "cluster", "vip", "reason")
	vipConflicts = desc("vip_conflicts_total", "Frames by which another host claimed the address while this node held it.", "cluster", "vip")
	vipAnnounced = desc("vip_announcements_total", "Rounds of gratuitous ARP or neighbour advertisements sent.", "cluster", "vip")
	vipFence     = desc("vip_fence", "1 for what silences the address when its lease here ends, 0 if that does not work at present.", "cluster", "vip", "kind")
	vipDropped   = desc("vip_fence_dropped_frames_total", "Frames for the address, or in its name, that came after its lease here had ended by itself: a dead or frozen holder was kept silent. Not counted by nftables.", "cluster", "vip")
	vipRelayed   = desc("vip_relayed_packets_total", "Packets for connections of the holder before that this node sent on to it.", "cluster", "vip")
	vipDraining  = desc("vip_draining", "1 while this node serves connections of an address that it let go, else 0.", "cluster", "vip")
	vipOlder     = desc("vip_draining_connections", "Connections of an address that this node let go and still serves.", "cluster", "vip")
	vipRepairs   = desc("vip_repairs_total", "Times that somebody else removed the address and it was put back.", "cluster", "vip")
)

// reasons are all values of the label reason, so that each series exists from the start.
var reasons = []election.Reason{election.NodeDead, election.CheckFailed, election.Planned, election.Preempt, election.Conflict, election.Start}

// newTakeovers makes the histogram of how long nobody answered for an address.
func newTakeovers() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "proxyd_vip_takeover_seconds",
		Help:    "From the last sign of life of the old holder to the first announcement here.",
		Buckets: []float64{.005, .01, .02, .05, .1, .2, .3, .5, 1, 2, 5},
	}, []string{"cluster", "vip"})
}

// newApplies makes the counter of configurations that were applied to the cluster.
func newApplies() *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "proxyd_cluster_applies_total",
		Help: "Configurations that this node was asked to apply to all nodes, by how that went.",
	}, []string{"result"})
	for _, result := range []string{"ok", "refused", "rolled_back"} {
		c.WithLabelValues(result)
	}
	return c
}

// newRotations makes the counter of rotations of the cluster's keys.
func newRotations() *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "proxyd_cluster_key_rotations_total",
		Help: "Rotations of the cluster's keys that this node was asked for, by how that went.",
	}, []string{"result"})
	for _, result := range []string{"ok", "refused", "unfinished"} {
		c.WithLabelValues(result)
	}
	return c
}

// newSlowBatches makes the counter of how often an event loop kept all its clients waiting.
func newSlowBatches(e *engine.Loop) prometheus.CounterFunc {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "proxyd_loop_slow_batches_total",
		Help: "Times that an event loop was busy for longer than a millisecond at a stretch.",
	}, func() float64 { return float64(e.Counts().SlowBatches) })
}

// newRefused makes the counter of clients that found no file descriptor left for them.
func newRefused(e *engine.Loop) prometheus.CounterFunc {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "proxyd_accept_failures_total",
		Help: "Clients that were turned away, or could not be accepted, for lack of file descriptors or memory.",
	}, func() float64 { return float64(e.Counts().Refused) })
}

// newRests makes the counter of how often an event loop rested to keep to a quota.
func newRests(e *engine.Loop) prometheus.CounterFunc {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "proxyd_loop_rests_total",
		Help: "Times that an event loop rested, to use a quota on processor time evenly.",
	}, func() float64 { return float64(e.Counts().Rests) })
}

// A checksOfQUIC shows what became of first packets of QUIC that were not simply taken.
type checksOfQUIC struct{ engine *engine.Loop }

var descChecksOfQUIC = prometheus.NewDesc("proxyd_quic_checks_total",
	"First packets of QUIC that were not taken: retry, the client was to show that its address is its own; refused, there was no room for a handshake.",
	[]string{"result"}, nil)

func (checksOfQUIC) Describe(c chan<- *prometheus.Desc) { c <- descChecksOfQUIC }

func (q checksOfQUIC) Collect(c chan<- prometheus.Metric) {
	n := q.engine.Counts()
	c <- prometheus.MustNewConstMetric(descChecksOfQUIC, prometheus.CounterValue, float64(n.Retries), "retry")
	c <- prometheus.MustNewConstMetric(descChecksOfQUIC, prometheus.CounterValue, float64(n.Unmet), "refused")
}

// goCollector shows the runtime, with the latencies of its scheduler.
func goCollector() prometheus.Collector {
	return collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsGC, collectors.MetricsScheduler))
}

// spoken is the version of the wire that is spoken with a node, 0 if none is.
func spoken(n ha.NodeView) float64 {
	if n.Newest == 0 || n.Signs.Unreadable {
		return 0
	}
	return float64(speaks().To(n.Newest))
}

// Describe implements prometheus.Collector.
func (clusterMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, nodeInfo, drift, members, expected, keysDesc, pausedDesc, standingDesc, dropped, gap, stalls,
		nodeIll, trackUp, trackChecks,
		silences, foreignKey, wireSpoken, pathAge, pathLoss, beatRealTime, beatLate, beatStalls,
		skew, probe, beatLoss, suspicions, refutations, nearMisses, messages, vipUnheld, historyFails, historyLost, notified,
		vipRelayed, vipDraining, vipOlder, vipHolder, vipMoves, vipConflicts, vipAnnounced, vipRepairs, vipFence, vipDropped} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m clusterMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	k, name, hash := m.node.part()
	self, zone := m.node.place()
	gauge(buildInfo, 1, version, runtime.Version())
	gauge(nodeInfo, 1, self, zone, name)
	h := m.node.record.ring.Stats()
	count(historyFails, h.Errors)
	count(historyLost, h.Lost)
	if k == nil {
		return
	}
	for o, n := range m.node.notify.Counts() {
		count(notified, n, o.Kind, o.Result)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	v, err := k.node.Status(ctx)
	if err != nil {
		return // the loop is ending; what is not known is not shown
	}
	states := map[string]int{"alive": 0, "suspect": 0, "dead": 0, "left": 0}
	other := 0
	for _, n := range v.Nodes {
		states[memberState(n)]++
		if n.State != ha.Unheard && n.Config != hash {
			other++
		}
		if n.Name != self {
			gauge(gap, n.Longest.Seconds(), name, n.Name)
			count(silences, n.Signs.Silences, name, n.Name)
			gauge(foreignKey, boolFloat(n.Signs.Foreign), name, n.Name)
			gauge(wireSpoken, spoken(n), name, n.Name)
			for _, p := range n.Signs.Paths {
				age := p.Age.Seconds()
				if p.Age < 0 {
					age = -1
				}
				gauge(pathAge, age, name, n.Name, p.Name)
				gauge(pathLoss, p.Loss, name, n.Name, p.Name)
			}
		}
	}
	for state, n := range states {
		gauge(members, float64(n), name, state)
	}
	standings, paused := m.node.standings()
	gauge(pausedDesc, boolFloat(paused != nil), name)
	for _, n := range v.Nodes {
		for _, state := range []string{"drain", "standby"} {
			gauge(standingDesc, boolFloat(standings[n.Name].State == state), name, n.Name, state)
		}
	}
	gauge(nodeIll, float64(v.Nodes[0].Ill), name, self)
	for _, t := range m.node.tracks.States() {
		gauge(trackUp, boolFloat(t.Up), name, t.Name, t.Kind)
		count(trackChecks, t.Good, name, t.Name, "good")
		count(trackChecks, t.Failed, name, t.Name, "failed")
	}
	gauge(drift, float64(other), name)
	gauge(expected, float64(len(v.Nodes)), name)
	for _, n := range v.Nodes[1:] {
		p := n.Path
		if p.RTT == 0 {
			continue
		}
		gauge(skew, p.Skew.Seconds(), name, n.Name)
		gauge(probe, p.RTT.Seconds(), name, n.Name)
		for direction, part := range map[string]float64{"in": p.LossIn, "out": p.LossOut} {
			if part >= 0 {
				gauge(beatLoss, part, name, n.Name, direction)
			}
		}
	}
	count(suspicions, v.Stats.Suspicions, name)
	count(refutations, v.Stats.Refutations, name)
	count(nearMisses, v.Stats.NearMisses, name)
	for kind, n := range v.Stats.Messages {
		count(messages, n, name, kind)
	}
	count(stalls, v.Stats.Stalls, name)
	if k.mesh != nil {
		for reason, n := range k.mesh.Dropped() {
			count(dropped, n, name, reason)
		}
		count(dropped, k.gossip.Refused(), name, "gossip")
		gauge(keysDesc, float64(len(k.keys.Secrets())), name)
		t := k.mesh.Thread()
		gauge(beatRealTime, boolFloat(t.RealTime), name)
		gauge(beatLate, t.Late.Seconds(), name)
		count(beatStalls, t.Stalls, name)
	}
	for _, vv := range v.VIPs {
		held := 0.0
		if vv.Here {
			held = 1
		}
		out <- prometheus.MustNewConstMetric(vipUnheld, prometheus.CounterValue, m.node.record.unheld(k.node, vv).Seconds(), name, vv.Name)
		gauge(vipHolder, held, name, vv.Name, self)
		for _, r := range reasons {
			count(vipMoves, vv.Changes[r], name, vv.Name, string(r))
		}
		keeper := k.now().keepers[vv.Name]
		if keeper == nil {
			continue
		}
		until, conns := keeper.Draining()
		draining := 0.0
		if until != 0 {
			draining = 1
		}
		gauge(vipDraining, draining, name, vv.Name)
		gauge(vipOlder, float64(max(conns, 0)), name, vv.Name)
		if sent, err := keeper.SentOn(); err == nil {
			count(vipRelayed, sent, name, vv.Name)
		}
		count(vipConflicts, keeper.Stats.Conflicts.Load(), name, vv.Name)
		count(vipAnnounced, keeper.Stats.Announcements.Load(), name, vv.Name)
		count(vipRepairs, keeper.Stats.Repairs.Load(), name, vv.Name)
		device := k.now().config.VIP[vv.Name].Interface
		f := k.fence(device)
		if f == nil {
			continue
		}
		gauge(vipFence, boolFloat(f.Fault == ""), name, vv.Name, f.Kind)
		if n, counted := k.devices[device].Fence().Dropped(keeper.Addr()); counted {
			count(vipDropped, n, name, vv.Name)
		}
	}
}

// memberState is what a voter counts as.
func memberState(n ha.NodeView) string {
	switch {
	case n.Left:
		return "left"
	case n.State == ha.Unheard:
		return "dead"
	case n.Suspect:
		return "suspect"
	}
	return "alive"
}

func boolFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
