package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// A glued pair is HAProxy and keepalived on the hosts of a stage, as proxyd's users have
// them today.
type glued struct {
	stage   *Stage
	advert  string // seconds between two advertisements
	haproxy map[*Node]*Process
	keeper  map[*Node]*Process
}

func newGlued(s *Stage, advert string) *glued {
	return &glued{stage: s, advert: advert, haproxy: map[*Node]*Process{}, keeper: map[*Node]*Process{}}
}

func (g *glued) values(n *Node) benchValues {
	v := benchValues{
		Name: n.Name, Interface: hostInterface, VIP: fmt.Sprintf("%v/%d", g.stage.VIP, subnetBits),
		Dir: g.stage.dir.file(n.Name), Advert: g.advert, Priority: 100,
	}
	if n == g.stage.Nodes[0] {
		v.Priority = 101
	}
	v.Check = filepath.Join(v.Dir, "check.sh")
	for _, w := range g.stage.webs {
		v.Servers = append(v.Servers, benchServer{w.Name, netip.AddrPortFrom(w.Addr, webPort)})
	}
	return v
}

// startProxy runs HAProxy on a host and tells keepalived's check its number.
func (g *glued) startProxy(n *Node) error {
	v := g.values(n)
	config, err := v.fill("edge-haproxy.cfg", "haproxy.cfg")
	if err != nil {
		return err
	}
	p, _, err := n.start(command{name: "HAProxy on " + n.Name, argv: []string{"haproxy", "-db", "-f", config}, log: filepath.Join(v.Dir, "haproxy.log")})
	if err != nil {
		return err
	}
	g.haproxy[n] = p
	var check bytes.Buffer
	fmt.Fprintf(&check, "#!/bin/sh\nkill -0 %s\n", strconv.Itoa(p.PID()))
	// Replaced in one step: keepalived may run it at any moment.
	if err := os.WriteFile(v.Check+".new", check.Bytes(), 0o700); err != nil {
		return err
	}
	return os.Rename(v.Check+".new", v.Check)
}

func (g *glued) startKeeper(n *Node) error {
	v := g.values(n)
	config, err := v.fill("keepalived.conf", "keepalived.conf")
	if err != nil {
		return err
	}
	p, _, err := n.start(command{
		name: "keepalived on " + n.Name,
		argv: []string{"keepalived", "--dont-fork", "--log-console", "--vrrp", "-f", config,
			"-p", filepath.Join(v.Dir, "keepalived.pid"), "-r", filepath.Join(v.Dir, "vrrp.pid")},
		log: filepath.Join(v.Dir, "keepalived.log"),
	})
	g.keeper[n] = p
	return err
}

func (g *glued) start() error {
	for _, n := range g.stage.Nodes {
		if err := g.startProxy(n); err != nil {
			return err
		}
		if err := g.startKeeper(n); err != nil {
			return err
		}
	}
	return nil
}

// faults are those of the drill that have a counterpart here.
func (g *glued) faults() []Fault {
	of := func(key string, strike, undo func(*Node) error) Fault {
		f, err := FaultByKey(key)
		if err != nil {
			panic(err) // the keys below are of this package
		}
		f.Strike = func(_ context.Context, _ *Stage, n *Node) error { return strike(n) }
		f.Undo = func(_ context.Context, _ *Stage, n *Node) error { return undo(n) }
		return f
	}
	planned := of("handover", func(n *Node) error { return g.keeper[n].Signal(syscall.SIGTERM) }, g.startKeeper)
	planned.Back = "started again"
	return []Fault{
		planned,
		of("kill", func(n *Node) error { return g.haproxy[n].Kill() }, g.startProxy),
		frozen(func(n *Node) error { return g.haproxy[n].Signal(syscall.SIGSTOP) }, func(n *Node) error { return g.haproxy[n].Signal(syscall.SIGCONT) }),
		of("cut", (*Node).Cut, (*Node).Uncut),
	}
}

// pairFaults are the faults that both know, in the order in which they are played.
var pairFaults = []string{"handover", "kill", "freeze", "cut"}

// frozenFor is for how long what serves stands still. It goes on by itself: of a pair that does
// not notice it that is the outage.
const (
	frozenFor  = 3 * time.Second
	frozenName = "SIGSTOP 3 s"
)

// frozen is the fault that what serves on the holder stands still.
func frozen(stop, goOn func(*Node) error) Fault {
	f, err := FaultByKey("freeze")
	if err != nil {
		panic(err) // it is a folder of this program
	}
	f.Name, f.Lasts = frozenName, frozenFor+500*time.Millisecond
	f.Strike = func(ctx context.Context, _ *Stage, n *Node) error {
		if err := stop(n); err != nil {
			return err
		}
		go func() { // ends after frozenFor, or with ctx
			_ = pause(ctx, frozenFor)
			_ = goOn(n) // a process that is gone needs none
		}()
		return nil
	}
	f.Undo = nil
	return f
}

// Failover plays the faults that both know on proxyd and on the glued pair, in turns, and
// returns a table.
func (b Bench) Failover(ctx context.Context) (Table, error) {
	t := Table{Head: []string{"event", "pair", "outage median", "p99", "failed median", "kept conns", "two at once"}}
	rows := map[string][]Row{}
	pairs := []struct{ name, advert string }{{"proxyd", ""}, {"keepalived 1 s + HAProxy", "1"}, {"keepalived 0.1 s + HAProxy", "0.1"}}
	for _, p := range pairs {
		measures, err := b.failover(ctx, p.name, p.advert)
		if err != nil {
			return t, fmt.Errorf("%s: %w", p.name, err)
		}
		rows[p.name] = Rows(measures)
	}
	for _, key := range pairFaults {
		f, err := FaultByKey(key)
		if err != nil {
			return t, err
		}
		name := f.Name
		if key == "freeze" {
			name = frozenName
		}
		for _, p := range pairs {
			for _, r := range rows[p.name] {
				if r.Event == name {
					t.Add(r.Event, p.name, showMS(r.Median), showMS(percentile(r.Outage, 99)), fmt.Sprint(r.FailedMid), fmt.Sprint(r.KeptFailed), showMS(r.TwoMax))
				}
			}
		}
	}
	return t, nil
}

// percentile returns the least of values that is no smaller than p of a hundred of them: of
// twenty the largest.
func percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)*p+99)/100-1]
}

func (b Bench) failover(ctx context.Context, name, advert string) ([]Measure, error) {
	rig, err := NewRig(b.Plan, DrillLoad())
	if err != nil {
		return nil, err
	}
	defer rig.Close()
	faults := []Fault{}
	if advert == "" {
		for _, key := range pairFaults {
			f, err := FaultByKey(key)
			if err != nil {
				return nil, err
			}
			if key == "freeze" {
				f = frozen((*Node).Freeze, (*Node).Thaw)
			}
			faults = append(faults, f)
		}
		err = rig.Stage.Start(ctx, patience)
	} else {
		g := newGlued(rig.Stage, advert)
		faults = g.faults()
		rig.Stage.unasked = true
		err = g.start()
	}
	if err != nil {
		return nil, err
	}
	var all []Measure
	for round := range b.Rounds {
		for _, f := range faults {
			ms, err := rig.Try(ctx, f)
			all = append(all, ms...)
			if err != nil {
				return all, err
			}
			fmt.Fprintf(b.Out, "%d/%d  %-28s %s\n", round+1, b.Rounds, name, ms[0])
			// A keepalived that has just come back is a fault of its own for a while.
			if err := pause(ctx, time.Second); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}
