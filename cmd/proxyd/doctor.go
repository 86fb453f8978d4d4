package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
	"proxyd/internal/control"
	"proxyd/internal/doctor"
	"proxyd/internal/ha"
	"proxyd/internal/ha/beat"
	"proxyd/internal/vip"
)

const (
	// listenTime is how long a doctor listens for others who hold addresses: keepalived
	// speaks once a second where nobody told it otherwise.
	listenTime = 1300 * time.Millisecond
	// reachTime is how long a port has to answer.
	reachTime = time.Second
)

// Doctor implements control.Operator.
func (n *node) Doctor(ctx context.Context) (*control.Doctor, error) {
	h := doctor.Host{Files: os.DirFS("/"), Threads: runtime.GOMAXPROCS(0)}
	k, _, _ := n.part()
	if k != nil {
		h.Interfaces = k.interfaces()
	}
	found := h.Check()
	if s := n.record.ring.Stats(); s.Fault != "" {
		found = append(found, doctor.Finding{Check: "history", Level: doctor.Warn, What: "not written to the disk: " + s.Fault,
			Why: "what happens is not known after a restart", Cure: "room and rights in node.state"})
	}
	found = append(found, loaded(n.plane.Load()))
	found = append(found, n.examineCertificates(time.Now())...)
	if k != nil {
		more, err := k.examine(ctx)
		if err != nil {
			return nil, err
		}
		found = append(append(found, more...), tracked(n.tracks.States())...)
	}
	doctor.Sort(found)
	return &control.Doctor{Node: n.nodeName(), Level: doctor.Worst(found), Findings: found}, nil
}

// interfaces are those that have VIPs.
func (k *cluster) interfaces() []doctor.Interface {
	var out []doctor.Interface
	at := map[string]int{}
	for _, v := range vipsOf(k.now().config) {
		i, seen := at[v.Interface]
		if !seen {
			i = len(out)
			at[v.Interface] = i
			out = append(out, doctor.Interface{Name: v.Interface})
			if n, err := net.InterfaceByName(v.Interface); err == nil {
				out[i].Index = n.Index
			}
		}
		out[i].IPv6 = out[i].IPv6 || v.Address.Addr().Is6()
	}
	return out
}

// examine looks at the addresses, their networks and the other nodes, all at once.
func (k *cluster) examine(ctx context.Context) ([]doctor.Finding, error) {
	v, err := k.node.Status(ctx)
	if err != nil {
		return nil, err
	}
	var addresses, speakers []doctor.Finding
	pair := k.pair(v)
	var all sync.WaitGroup
	all.Go(func() { addresses = k.examineVIPs(v) })
	all.Go(func() { speakers = k.examineSpeakers(ctx) })
	for i := range pair.Peers {
		all.Go(func() { k.tryPorts(ctx, v.Nodes[i+1], &pair.Peers[i]) })
	}
	all.Wait()
	out := slices.Concat(addresses, speakers, k.protections(), k.examineBeat())
	for _, a := range v.Arbiters {
		f := doctor.Finding{Check: "arbiter", About: a.Addr.String(), Level: doctor.OK, What: "it answers"}
		if !a.OK {
			f.Level, f.What = doctor.Fail, "it does not answer: "+a.Reason
			f.Why, f.Cure = "a survivor that reaches no arbiter does not take over", "another arbiter, or mend the way to it"
		}
		out = append(out, f)
	}
	if len(pair.Peers) == 0 {
		out = append(out, doctor.Finding{Check: "heard", Level: doctor.Warn, What: "there is no other node", Why: "nobody takes over", Cure: "a second node in cluster.join"})
		return out, nil
	}
	return append(out, pair.Check()...), nil
}

// protections says by what an old holder falls silent, and by what a hand-over keeps
// connections.
func (k *cluster) protections() []doctor.Finding {
	if len(k.now().keepers) == 0 {
		return nil
	}
	var out []doctor.Finding
	for _, i := range k.interfaces() {
		out = append(out, fenced(i.Name, k.fence(i.Name)))
	}
	return out
}

// fenced judges what silences the addresses of an interface.
func fenced(name string, f *control.Fence) doctor.Finding {
	out := doctor.Finding{Check: "fence", About: name, Level: doctor.OK, Cure: "docs/FENCING.md"}
	switch {
	case f == nil || f.Kind == "lifetime":
		out.Level, out.What = doctor.Warn, "no fence: only the lifetime of the address silences a holder that is dead or frozen"
		out.Why = "for one to two seconds two hosts answer for it after a holder has died or frozen"
	case f.Fault != "":
		out.Level, out.What, out.Why = doctor.Fail, f.Kind+" does not work: "+f.Fault, "a frozen holder answers for the address beside the new one, until its lifetime ends"
	default:
		out.What, out.Cure = "a holder whose lease ends is silenced by "+f.Kind, ""
		if f.Means != "" {
			out.What += " (" + f.Means + ")"
		}
	}
	if f != nil && len(f.Worse) > 0 {
		out.What += "; no better one: " + strings.Join(f.Worse, "; ")
	}
	return out
}

// examineBeat judges the thread of the heartbeat.
func (k *cluster) examineBeat() []doctor.Finding {
	if k.mesh == nil {
		return nil
	}
	return []doctor.Finding{beating(k.mesh.Thread())}
}

// beating judges how the heartbeat's thread fares.
func beating(t beat.Thread) doctor.Finding {
	f := doctor.Finding{Check: "heartbeat", Level: doctor.OK, What: "its thread runs in real time"}
	if !t.RealTime {
		f.Level, f.What = doctor.Warn, t.Why
		f.Why = "on a host whose cores are all busy this node may be taken for dead"
		f.Cure = "CAP_SYS_NICE or LimitRTPRIO=1 in the unit, and no control group that forbids it (cpu.rt_runtime_us)"
	}
	f.What += fmt.Sprintf("; it came too late by %v at the most", t.Late.Round(10*time.Microsecond))
	if t.Stalls > 0 {
		f.What += fmt.Sprintf(", and %d times by more than two beats", t.Stalls)
	}
	return f
}

// pair is what was measured of the other nodes.
func (k *cluster) pair(v ha.View) *doctor.Pair {
	t := k.now().config.Cluster.Timing
	p := &doctor.Pair{Heartbeat: t.Heartbeat, Lease: t.Lease, Guard: t.Guard, Problems: v.Problems, Stalls: v.Stats.Stalls, LongestStall: v.Stats.LongestStall}
	for _, nv := range v.Nodes[1:] {
		q := doctor.Peer{Name: nv.Name, Heard: nv.State != ha.Unheard, Why: nv.Reason, Longest: nv.Longest, Limit: nv.Limit,
			RTT: nv.Path.RTT, Skew: nv.Path.Skew, Known: nv.Path.RTT > 0, LossIn: nv.Path.LossIn, LossOut: nv.Path.LossOut,
			HearsUs: nv.Path.HearsUs >= 0 && nv.Path.HearsUs < nv.Limit}
		p.Peers = append(p.Peers, q)
	}
	return p
}

// tryPorts tries the ports of a peer, and asks the kernel about the path.
func (k *cluster) tryPorts(ctx context.Context, nv ha.NodeView, p *doctor.Peer) {
	to, err := netip.ParseAddrPort(string(nv.ID))
	if err != nil {
		return // a node alone
	}
	for _, port := range []struct {
		number uint16
		what   string
	}{{to.Port(), "membership and state"}, {to.Port() + 1, "lifeline and challenges"}} {
		dial, cancel := context.WithTimeout(ctx, reachTime)
		c, err := new(net.Dialer).DialContext(dial, "tcp", netip.AddrPortFrom(to.Addr(), port.number).String())
		cancel()
		if err == nil {
			c.Close()
		}
		p.Ports = append(p.Ports, doctor.Port{Name: fmt.Sprintf("%d/tcp", port.number), What: port.what, Err: plain(err)})
	}
	// What comes by packet was measured by the beats themselves, in each direction.
	udp := fmt.Sprintf("%d/udp and %d/udp", to.Port(), to.Port()+1)
	in := doctor.Port{Name: udp + " from there", What: "its beats come"}
	if !p.Heard {
		in.Err = errors.New("no beat of it comes")
	}
	out := doctor.Port{Name: udp + " to there", What: "our beats are answered"}
	if !p.HearsUs {
		out.Err = errors.New("it answers no beat of ours")
	}
	p.Ports = append(p.Ports, in, out)
	p.MTU, p.Link = pathMTU(to)
}

// plain takes addresses and words of the library out of an error of a dial.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("refused")
	}
	if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
		return errors.New("no answer: dropped on the way, or the host is down")
	}
	return err
}

// pathMTU returns what the kernel knows of the path to an address, and the MTU of the
// interface by which it goes there; 0 is not known.
func pathMTU(to netip.AddrPort) (path, link int) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return 0, 0
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if to.Addr().Unmap().Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	_ = raw.Control(func(fd uintptr) {
		path, _ = unix.GetsockoptInt(int(fd), level, option) // 0 if it is not known
	})
	from, ok := c.LocalAddr().(*net.UDPAddr)
	interfaces, err := net.Interfaces()
	if !ok || err != nil {
		return path, 0
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(from.IP) {
				link = i.MTU
			}
		}
	}
	return path, link
}

// probeTime is how long another host has to answer for an address.
const probeTime = 300 * time.Millisecond

// How many addresses are looked at at a time, and for how long all of them together. One that
// nobody answers for takes probeTime.
const (
	maxProbes   = 32
	examineTime = 3 * time.Second
)

// examineVIPs asks the networks of the addresses, of many at once.
func (k *cluster) examineVIPs(v ha.View) []doctor.Finding {
	until := time.Now().Add(examineTime)
	found := make([][]doctor.Finding, len(v.VIPs))
	places := make(chan struct{}, maxProbes)
	var all sync.WaitGroup
	for i, vv := range v.VIPs {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			found[i] = k.examineVIP(v, vv, until)
		})
	}
	all.Wait()
	return slices.Concat(found...)
}

// examineVIP looks at one address. After until its network is not asked any more.
func (k *cluster) examineVIP(v ha.View, vv ha.VIPView, until time.Time) []doctor.Finding {
	c := k.now().config.VIP[vv.Name]
	if c == nil {
		return nil
	}
	var out []doctor.Finding
	add := func(check string, level doctor.Level, what, why, cure string) {
		out = append(out, doctor.Finding{Check: check, About: vv.Name, Level: level, What: what, Why: why, Cure: cure})
	}
	if err := inReach(c); err != nil {
		add("subnet", doctor.Fail, err.Error(), "neighbours do not ask for it there", "another interface or address, or an address of that subnet for the host")
	} else {
		add("subnet", doctor.OK, fmt.Sprintf("%s is in a subnet of %s", c.Address.Addr(), c.Interface), "", "")
	}
	if names := strangers(c.Prefer, v.Nodes); len(names) > 0 {
		add("prefer", doctor.Warn, fmt.Sprintf("it prefers %s, and no node has that name", strings.Join(names, ", ")),
			"what stands behind it in the list is preferred instead", "the names of `hactl member list`")
	}
	if vv.Fault != "" {
		add("fault", doctor.Fail, vv.Fault, "this node could not hold it", "")
	}
	for _, node := range slices.Sorted(maps.Keys(vv.Faults)) {
		add("fault", doctor.Fail, fmt.Sprintf("%s: %s", node, vv.Faults[node]), "that node could not hold it", "`hactl doctor` there")
	}
	keeper := k.now().keepers[vv.Name]
	if keeper == nil {
		return out
	}
	if !vv.Here && len(vv.Holders) > 0 {
		add("duplicate", doctor.OK, fmt.Sprintf("%s holds it; whether another host answers too, `hactl doctor` says there", vv.Holders[0]), "", "")
		return out
	}
	if time.Now().After(until) {
		add("duplicate", doctor.Warn, fmt.Sprintf("its network was not asked: there are more addresses than could be looked at in %v", examineTime), "another host may have it", "run it again when the host is less busy")
		return out
	}
	taken, _, err := keeper.Probe(clock.Now(), probeTime)
	switch {
	case err != nil:
		add("duplicate", doctor.Warn, "its network cannot be asked: "+err.Error(), "another host may have it", "")
	case taken:
		add("duplicate", doctor.Fail, fmt.Sprintf("another host answers for %s on %s", c.Address.Addr(), c.Interface),
			"some clients go there", "find it: `hactl history` has its MAC, and `ip neigh` on the gateway; take the address away there")
	default:
		add("duplicate", doctor.OK, "nobody else answers for it", "", "")
	}
	return out
}

// strangers are the names that no node has, nil while the name of any is not known.
func strangers(names []string, nodes []ha.NodeView) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(nodes, func(nv ha.NodeView) bool { return nv.Name == name || nv.Name == string(nv.ID) })
	})
}

// examineSpeakers listens for other programs that hold addresses.
func (k *cluster) examineSpeakers(ctx context.Context) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, listenTime)
	defer cancel()
	interfaces := k.interfaces()
	out := make([][]doctor.Finding, len(interfaces))
	var all sync.WaitGroup
	for i, name := range interfaces {
		all.Go(func() { out[i] = k.speakersOn(ctx, name.Name) })
	}
	all.Wait()
	var flat []doctor.Finding
	for _, f := range out {
		flat = append(flat, f...)
	}
	return flat
}

func (k *cluster) speakersOn(ctx context.Context, name string) []doctor.Finding {
	heard, err := vip.Speakers(ctx, name)
	if err != nil {
		return []doctor.Finding{{Check: "speakers", About: name, Level: doctor.Warn, What: err.Error(), Why: "keepalived or another may hold the same address"}}
	}
	if len(heard) == 0 {
		return []doctor.Finding{{Check: "speakers", About: name, Level: doctor.OK, What: fmt.Sprintf("nobody else speaks VRRP or CARP (heard for %v)", listenTime)}}
	}
	var out []doctor.Finding
	for _, s := range heard {
		f := doctor.Finding{Check: "speakers", About: name, Level: doctor.Warn, What: s.String(), Why: "another program moves addresses on this network",
			Cure: "nothing, if they are other addresses than ours"}
		for _, v := range vipsOf(k.now().config) {
			if s.Claims(v.Address.Addr()) {
				f.Level, f.Why, f.Cure = doctor.Fail, fmt.Sprintf("it holds vip.%s too, and does not know of us: clients change between both", v.Name), "stop keepalived (or what it is) there, or take the address out of its configuration"
			}
		}
		out = append(out, f)
	}
	return out
}
