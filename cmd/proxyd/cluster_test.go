package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/freeport"
)

// launchCluster runs a cluster of n nodes on addresses of loopback, none of which holds a VIP:
// what they share and tell each other needs none. The text is the same on all; its
// listener web is replaced on each by one of its own, for they share a host.
func launchCluster(t *testing.T, n int, text string) []*program {
	t.Helper()
	if testing.Short() {
		t.Skip("end to end")
	}
	t.Parallel() // most of each test is waiting
	join := clusterAddrs(t, n)
	keys := t.TempDir()
	var all []*program
	for i := range n {
		dir := t.TempDir()
		p := &program{t: t, dir: dir, file: filepath.Join(dir, "proxyd.toml"), name: fmt.Sprintf("edge-%d", i+1), above: clusterHead(t, keys, join, i)}
		all = append(all, p)
	}
	for i, p := range all {
		p.address = freeport.Address(t)
		if err := os.MkdirAll(p.dir+"/state", 0o750); err != nil {
			t.Fatal(err)
		}
		own := fmt.Sprintf("[remove]\nlistener = [\"web\"]\n[listener.own]\naddress = %q\n", p.address)
		if err := os.WriteFile(p.dir+"/state/changes.toml", []byte(own), 0o640); err != nil {
			t.Fatal(err)
		}
		p.write(text)
		p.start()
		t.Cleanup(func() {
			p.stop()
			if t.Failed() {
				t.Logf("edge-%d said:\n%s", i+1, p.log)
			}
		})
	}
	all[0].eventually("all nodes hear each other", func() bool { return heard(all) })
	return all
}

// heard reports whether every node hears every other.
func heard(all []*program) bool {
	for _, p := range all {
		s, err := p.Status(p.t.Context())
		if err != nil || len(s.Nodes) != len(all) {
			return false
		}
		for _, n := range s.Nodes {
			if n.State == "unheard" {
				return false
			}
		}
	}
	return true
}

// clusterAddrs returns n addresses of loopback at a port that is free on all of them, as
// is the one above.
func clusterAddrs(t *testing.T, n int) []string {
	t.Helper()
	free := freeport.Take(t, 2)
	var join []string
	for i := range n {
		join = append(join, fmt.Sprintf("127.0.0.%d:%d", 11+i, free))
	}
	return join
}

func clusterHead(t *testing.T, dir string, join []string, i int) string {
	t.Helper()
	key := filepath.Join(dir, "cluster.key")
	if err := os.WriteFile(key, []byte("the secret of the cluster under test"), 0o600); err != nil {
		t.Fatal(err)
	}
	quoted := make([]string, len(join))
	for k, a := range join {
		quoted[k] = fmt.Sprintf("%q", a)
	}
	return fmt.Sprintf("cluster.name = \"test\"\ncluster.timing = \"slow\"\ncluster.join = [%s]\ncluster.bind = %q\ncluster.secret = \"file:%s\"\n", strings.Join(quoted, ", "), join[i], key)
}

// answering is a configuration that answers everything with a status.
func answering(status int) string {
	return fmt.Sprintf("[listener.web]\naddress = \"127.0.0.1:1\"\n[[route]]\nname = \"all\"\nrespond = { status = %d }\n", status)
}

func TestNodeStateReachesEveryNodeAndStaysOverARestart(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	a, b := all[0], all[1]
	if _, err := a.SteerNode(t.Context(), control.NodeWish{Node: "edge-2", State: "drain", By: "ann", Reason: "kernel"}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	drained := func() bool {
		s, err := b.Status(t.Context())
		return err == nil && s.Nodes[0].State == "draining" && s.Nodes[0].Standing != nil && s.Nodes[0].Standing.By == "ann" && s.Nodes[0].Standing.On == "edge-1"
	}
	b.eventually("edge-2 drains", drained)
	t.Logf("after %v", time.Since(began))
	if code, body := ready(t, b); code != 503 || !strings.Contains(body, "drain, asked for by ann on edge-1: kernel") {
		t.Errorf("readyz of edge-2 is %d %q", code, body)
	}
	if code, _ := ready(t, a); code != 200 {
		t.Errorf("readyz of edge-1 is %d", code)
	}
	a.eventually("edge-1 sees it", func() bool {
		s, err := a.Status(t.Context())
		return err == nil && s.Health == "degraded" && s.Nodes[1].State == "draining"
	})
	if n := a.metric(`proxyd_node_standing{cluster="test",node="edge-2",state="drain"}`); n != 1 {
		t.Errorf("metric of the drain = %v", n)
	}
	_ = b.cmd.Process.Kill()
	<-b.done
	b.start()
	b.eventually("edge-2 still drains after a kill", drained)
	b.eventually("both nodes hear each other again", func() bool { return heard(all) })

	if _, err := b.SteerNode(t.Context(), control.NodeWish{Node: "edge-1", State: "standby", ForMS: 1500}); err != nil {
		t.Fatal(err)
	}
	a.eventually("edge-1 stands by", func() bool {
		s, err := a.Status(t.Context())
		return err == nil && s.Nodes[0].State == "standby"
	})
	a.eventually("the time of edge-1 is over", func() bool {
		s, err := a.Status(t.Context())
		return err == nil && s.Nodes[0].State == "up"
	})
	if _, err := a.SteerNode(t.Context(), control.NodeWish{Node: "edge-2", State: "online"}); err != nil {
		t.Fatal(err)
	}
	b.eventually("edge-2 is online", func() bool {
		code, _ := ready(t, b)
		s, err := b.Status(t.Context())
		return err == nil && s.Nodes[0].State == "up" && code == 200
	})

	if _, err := a.Pause(t.Context(), control.PauseWish{On: true, ForMS: 60_000, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	b.eventually("edge-2 is paused", func() bool {
		s, err := b.Status(t.Context())
		return err == nil && s.Paused != nil && s.Paused.By == "ann" && s.Paused.Until != nil && b.metric(`proxyd_cluster_paused{cluster="test"}`) == 1
	})
	if _, err := b.Pause(t.Context(), control.PauseWish{}); err != nil {
		t.Fatal(err)
	}
	a.eventually("edge-1 goes on", func() bool { s, err := a.Status(t.Context()); return err == nil && s.Paused == nil })
	if _, err := a.SteerNode(t.Context(), control.NodeWish{Node: "edge-9", State: "drain"}); err == nil || !strings.Contains(err.Error(), "there are edge-1, edge-2") {
		t.Errorf("drain of a node that there is not = %v", err)
	}
}

// What a start that failed left open would be in the way of the next one.
func TestAClusterPartThatCannotBeOpenedLeavesNothingOpen(t *testing.T) {
	text := site(freeport.Address(t), "one")
	p := launch(t, text)
	own := freeport.Address(t)
	taken, err := net.Listen("tcp", own) // the port of the gossip, which is opened last
	if err != nil {
		t.Fatal(err)
	}
	// cluster.bind, which clusterHead gives, is no part of a reload.
	p.above = strings.Replace(clusterHead(t, t.TempDir(), []string{own, "192.0.2.12:7946"}, 0), "cluster.bind", "#", 1)
	p.write(text)
	for range 2 {
		if _, err := p.Reload(t.Context()); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "gossip socket "+own) {
			t.Errorf("Reload = %v, want that the port is taken", err)
		}
	}
	taken.Close()
	if _, err := p.Reload(t.Context()); err != nil {
		t.Errorf("with the port free: %v", err)
	}
}

// ready asks /readyz on the admin socket.
func ready(t *testing.T, p *program) (int, string) {
	t.Helper()
	return getUnix(t, p.dir+"/admin.sock", "/readyz")
}
