package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"proxyd/internal/backup"
	"proxyd/internal/config"
	"proxyd/internal/control"
)

func TestLostNodeIsReplacedFromItsBackupWhileTheOtherServes(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	a, b := all[0], all[1]
	if _, err := a.SteerNode(t.Context(), control.NodeWish{Node: "edge-2", State: "standby"}); err != nil {
		t.Fatal(err)
	}
	given, err := b.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range given.Files {
		if bytes.Contains(f.Data, []byte("the secret of the cluster under test")) {
			t.Errorf("%s has the secret", f.Name)
		}
	}
	archive := &backup.Archive{Manifest: backup.Manifest{Node: given.Node, Address: given.Address, Main: given.Main, State: given.State}}
	for _, f := range given.Files {
		archive.Add(f.Name, f.Data)
	}
	l := pour(t, "http://"+a.address) // asked all the time: from now on it must not fail

	_ = b.cmd.Process.Kill() // for good, with its disk
	<-b.done
	if err := os.RemoveAll(b.dir + "/state"); err != nil {
		t.Fatal(err)
	}
	a.eventually("edge-1 sees that edge-2 is lost", func() bool {
		s, err := a.Status(t.Context())
		return err == nil && s.Nodes[1].State == "unheard"
	})
	port := given.Address[strings.LastIndexByte(given.Address, ':'):]
	r, err := a.Member(t.Context(), control.MemberWish{Op: "replace", Node: "edge-2", Address: "127.0.0.13" + port, CanaryMS: 100})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Nodes) != 1 || !strings.Contains(strings.Join(r.Nodes[0].Changes, " "), "127.0.0.13") {
		t.Errorf("replace = %+v", r)
	}

	dir := t.TempDir()
	c := &program{t: t, dir: b.dir, file: dir + "/proxyd.toml", name: "edge-3", address: b.address}
	if _, err := archive.Restore(backup.Target{Main: c.file, State: dir + "/state", Name: "edge-3", Address: "127.0.0.13" + port}); err != nil {
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(c.stop)
	now := []*program{a, c}
	a.eventually("the new node is heard", func() bool { return heard(now) })
	s, err := c.Status(t.Context())
	if err != nil || s.Node != "edge-3" || s.Nodes[1].Standing != nil {
		t.Errorf("the new node says %+v, %v", s, err)
	}
	wantAnswers(t, "after the replacement", now, 200)
	if n, failed := l.end(); failed != nil || n == 0 {
		t.Errorf("of %d requests failed: %v", n, failed)
	}
}

func TestMembersAreRemovedAndAddedOneByOne(t *testing.T) {
	all := launchCluster(t, 3, answering(200))
	a := all[0]
	remove := control.MemberWish{Op: "remove", Node: "edge-3", CanaryMS: 100}
	if _, err := a.Member(t.Context(), remove); !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), "standby edge-3") {
		t.Errorf("remove of a node that is up = %v", err)
	}
	if _, err := a.Member(t.Context(), control.MemberWish{Op: "remove", Node: "edge-1"}); !errors.Is(err, control.ErrRefused) {
		t.Errorf("remove of the node that was asked = %v", err)
	}
	if _, err := a.SteerNode(t.Context(), control.NodeWish{Node: "edge-3", State: "standby"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Member(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	all[2].stop()
	for i, text := range files(t, all[:2]) {
		if got := config.Voters([]byte(text)); len(got) != 2 {
			t.Errorf("edge-%d has the voters %v", i+1, got)
		}
	}
	a.eventually("two hear each other", func() bool { return heard(all[:2]) })

	before, err := os.ReadFile(all[2].file)
	if err != nil {
		t.Fatal(err)
	}
	third := config.Voters(before)[2].String()
	if _, err := a.Member(t.Context(), control.MemberWish{Op: "add", Address: third, CanaryMS: 100}); err != nil {
		t.Fatal(err)
	}
	all[2].start()
	a.eventually("three hear each other", func() bool { return heard(all) })
	if _, err := a.Member(t.Context(), control.MemberWish{Op: "add", Address: third}); !errors.Is(err, control.ErrRefused) {
		t.Errorf("add of a member = %v", err)
	}
	if _, err := a.Member(t.Context(), control.MemberWish{Op: "add", Address: "edge-4"}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("add of a name = %v", err)
	}
}
