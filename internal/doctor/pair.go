package doctor

import (
	"fmt"
	"strings"
	"time"
)

// A Pair is what a node measured of its cluster.
type Pair struct {
	Heartbeat, Lease, Guard time.Duration
	Problems                []string // what the nodes do not agree on
	Stalls                  uint64
	LongestStall            time.Duration
	Peers                   []Peer
}

// Peer is one other node.
type Peer struct {
	Name    string
	Heard   bool
	Why     string        // it is not heard
	Longest time.Duration // silence within a day
	Limit   time.Duration
	RTT     time.Duration // 0: not measured
	Skew    time.Duration // its clock is ahead by that
	Known   bool          // Skew is
	HearsUs bool          // it answered a beat of ours of late
	// LossIn and LossOut are the parts of beats that were lost from it and to it; -1 is
	// not known.
	LossIn, LossOut float64

	Ports []Port // what came of trying to reach it
	MTU   int    // of the path, as the kernel knows it; 0: not known
	Link  int    // MTU of the interface towards it
}

// Port is one that was tried.
type Port struct {
	Name string // "7946/tcp"
	What string
	Err  error
}

const (
	// skewWarn is where logs of two nodes begin to contradict each other; skewFail where
	// tokens and certificates do.
	skewWarn = 500 * time.Millisecond
	skewFail = 30 * time.Second
	// lossWarn is a loss at which something is broken, lossFail one at which leases end.
	lossWarn = 0.01
	lossFail = 0.2
	// leastMTU carries what the nodes say to each other.
	leastMTU = 1280
)

// Check judges what was measured.
func (p *Pair) Check() []Finding {
	out := []Finding{find("config", "", len(p.Problems) == 0, Fail, "all nodes that are heard have the same configuration", strings.Join(p.Problems, "; "),
		"what holds after a failover is another configuration than now", "copy the file and `hactl reload` there")}
	out = append(out, find("stalls", "", p.LongestStall < p.Guard, stallLevel(p), fmt.Sprintf("the cluster loop was never later than %v", ms(p.LongestStall)),
		fmt.Sprintf("the cluster loop was late by up to %v (guard %v, lease %v; %d times by more than a lease)", ms(p.LongestStall), p.Guard, p.Lease, p.Stalls),
		"a node that stands still for a lease loses the address", "a real-time thread, no CPU quota, no overcommitted or suspended machine; or timing = \"slow\""))
	for i := range p.Peers {
		out = append(out, p.peer(&p.Peers[i])...)
	}
	return out
}

func stallLevel(p *Pair) Level {
	if p.Stalls > 0 {
		return Fail
	}
	return Warn
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func (p *Pair) peer(q *Peer) []Finding {
	out := []Finding{find("heard", q.Name, q.Heard, Fail, "heard", "not heard: "+q.Why, "there is nobody to take over", "look at that host, and at the ports below")}
	for _, port := range q.Ports {
		out = append(out, find("ports", q.Name, port.Err == nil, Fail, port.Name+" is open: "+port.What, fmt.Sprintf("%s does not answer: %v", port.Name, port.Err),
			"a firewall between the nodes takes away what it drops: lifeline, challenge, state or heartbeat", "let 7946 and 7947, tcp and udp, through in both directions (docs/PORTS.md); ask `hactl doctor` of the other node too"))
	}
	if q.Heard {
		out = append(out, find("gaps", q.Name, 2*q.Longest <= q.Limit, Warn,
			fmt.Sprintf("longest silence within a day %v of %v", ms(q.Longest), q.Limit), fmt.Sprintf("a silence of %v, of %v that are borne, within a day", ms(q.Longest), q.Limit),
			"a little more, and it is taken for dead", "`hactl history` has each near miss; a loss on the path, a busy host, or timing = \"slow\""))
	}
	for _, l := range []struct {
		way  string
		part float64
	}{{"from there", q.LossIn}, {"to there", q.LossOut}} {
		if l.part < 0 {
			continue
		}
		level := Warn
		if l.part >= lossFail {
			level = Fail
		}
		out = append(out, find("loss", q.Name+" "+l.way, l.part < lossWarn, level, fmt.Sprintf("%.1f %% of the beats were lost", 100*l.part),
			fmt.Sprintf("%.1f %% of the beats were lost", 100*l.part), "six beats in a row that are lost look like a dead node", "the cable, the switch port, a full link; a second path"))
	}
	if q.RTT > 0 {
		level := Warn
		if 4*q.RTT > p.Lease {
			level = Fail
		}
		out = append(out, find("timing", q.Name, 2*q.RTT <= p.Heartbeat, level, fmt.Sprintf("round trip %v, heartbeat %v", ms(q.RTT), p.Heartbeat),
			fmt.Sprintf("round trip %v, heartbeat %v, lease %v", ms(q.RTT), p.Heartbeat, p.Lease),
			"a lease is renewed by an answer: it must come well before the next beat", "cluster.timing = \"slow\", or own numbers of at least twice the round trip"))
	}
	if q.Known {
		skew := q.Skew.Abs()
		level := Warn
		if skew >= skewFail {
			level = Fail
		}
		out = append(out, find("clock", q.Name, skew < skewWarn, level, fmt.Sprintf("its clock differs by %v", ms(q.Skew)), fmt.Sprintf("its clock is off by %v", q.Skew.Round(time.Millisecond)),
			"the election does not care; logs, the history, tokens and certificates do", "NTP or PTP on both"))
	}
	if q.MTU > 0 {
		level, bad := Warn, fmt.Sprintf("the path carries %d bytes, the interface %d", q.MTU, q.Link)
		if q.MTU < leastMTU {
			level, bad = Fail, fmt.Sprintf("the path carries %d bytes; what the nodes say to each other needs %d", q.MTU, leastMTU)
		}
		out = append(out, find("mtu", q.Name, q.MTU >= q.Link && q.MTU >= leastMTU, level, fmt.Sprintf("the path carries %d bytes", q.MTU), bad,
			"large packets are lost or cut where something drops ICMP", fmt.Sprintf("the same MTU, %d or more, on all hosts and switches of that network", leastMTU)))
	}
	return out
}
