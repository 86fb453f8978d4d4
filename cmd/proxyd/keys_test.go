package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/ha/keyring"
	"proxyd/internal/history"
)

// settled waits until every node has one and the same key, and returns it.
func settled(t *testing.T, of *program, nodes int) control.Key {
	t.Helper()
	k, err := of.Keys(t.Context())
	if err != nil || !k.Settled || len(k.Nodes) != nodes || len(k.Keys) != 1 || len(k.Keys[0].Seals) != nodes {
		t.Fatalf("keys %+v, %v", k, err)
	}
	return k.Keys[0]
}

func TestKeysAreRotatedWithoutLosingANode(t *testing.T) {
	all := launchCluster(t, 3, answering(200))
	a, b, c := all[0], all[1], all[2]
	first := settled(t, a, 3)
	if first.Number != 0 {
		t.Errorf("the first key is %+v", first)
	}
	r, err := a.RotateKeys(t.Context(), control.KeysWish{By: "ann"})
	if err != nil || r.Resumed || r.Key.Number != 1 || len(r.Key.Seals) != 3 || len(r.Dropped) != 1 || r.Dropped[0] != first.Mark {
		t.Fatalf("rotated %+v, %v", r, err)
	}
	// Long enough for a node that is not understood any more to be missed.
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		if !heard(all) {
			t.Fatal("a node is lost")
		}
	}
	if now := settled(t, b, 3); now.Mark != r.Key.Mark || now.Since.IsZero() {
		t.Errorf("edge-2 has %+v", now)
	}
	for _, p := range all {
		if said := p.log.String(); strings.Contains(said, "node lost") || strings.Contains(said, "another key") {
			t.Errorf("a node noticed:\n%s", said)
		}
	}
	if n := a.metric(`proxyd_cluster_key_rotations_total{result="ok"}`); n != 1 {
		t.Errorf("rotations = %v", n)
	}
	if n := c.metric(`proxyd_cluster_keys{cluster="test"}`); n != 1 {
		t.Errorf("keys of edge-3 = %v", n)
	}
	h, err := a.History(t.Context(), control.HistoryQuery{})
	if err != nil || !strings.Contains(historyText(h.Entries), "key "+r.Key.Mark+" is in force") {
		t.Errorf("history %+v, %v", h, err)
	}

	// A host that is added now needs the ring, and who adds it is told.
	added, err := a.Member(t.Context(), control.MemberWish{Op: "add", Address: "127.0.0.99", DryRun: true})
	if err != nil || !strings.Contains(strings.Join(added.Warnings, " "), filepath.Join(a.dir, "state", keyring.File)) {
		t.Errorf("an addition after a rotation says %+v, %v", added, err)
	}

	// The ring is there after a crash, and in the process that takes another's place.
	_ = c.cmd.Process.Kill()
	<-c.done
	c.start()
	c.eventually("edge-3 is heard again", func() bool { return heard(all) })
	if now := settled(t, c, 3); now.Mark != r.Key.Mark {
		t.Errorf("after a crash edge-3 has %+v", now)
	}
	up := &upgraded{b, b.cmd.Process.Pid}
	up.upgrade("")
	// A call that the old process took in just before it ended is told so.
	b.eventually("the keys are rotated again", func() bool {
		_, err = b.RotateKeys(t.Context(), control.KeysWish{By: "ann"})
		return err == nil
	})
	if now := settled(t, a, 3); now.Number != 2 || !heard(all) {
		t.Errorf("after an upgrade %+v", now)
	}
	backup, err := a.Backup(t.Context())
	if err != nil || len(backup.Secrets) != 2 || backup.Secrets[1] != "file:"+filepath.Join(a.dir, "state", keyring.File) {
		t.Errorf("the backup names %q, %v", backup.Secrets, err)
	}

	// Every node must be there.
	c.stop()
	a.eventually("edge-3 is missed", func() bool { return !heard(all[:2]) })
	if _, err = a.RotateKeys(t.Context(), control.KeysWish{By: "ann"}); !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), "edge-3") && !strings.Contains(err.Error(), "127.0.0.13") {
		t.Errorf("a rotation without edge-3 = %v", err)
	}
	if k, err := a.Keys(t.Context()); err != nil || k.Settled || len(k.Keys) != 1 || k.Nodes[2].Error == "" {
		t.Errorf("keys without edge-3 = %+v, %v", k, err)
	}
	c.start()
	c.eventually("edge-3 is heard again", func() bool { return heard(all) })
}

func historyText(all []history.Entry) string {
	var b strings.Builder
	for _, e := range all {
		b.WriteString(e.Text + "\n")
	}
	return b.String()
}

// The present key may stand in the file of cluster.secret, or an earlier one: neither starts
// the cluster part anew. One that nobody had does, and goes before the ring.
func TestSecretInTheFileAfterARotation(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	a := all[0]
	if _, err := a.RotateKeys(t.Context(), control.KeysWish{By: "ann"}); err != nil {
		t.Fatal(err)
	}
	ring, err := os.ReadFile(filepath.Join(a.dir, "state", keyring.File))
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(string(ring), `"secret": "`)
	secret, _, _ = strings.Cut(secret, `"`)
	_, key, _ := strings.Cut(a.above, "file:")
	key, _, _ = strings.Cut(key, `"`)
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if _, err := p.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(secret)
	if !heard(all) || strings.Contains(a.log.String(), "starts anew") {
		t.Errorf("the present key in the file:\n%s", a.log)
	}
	if k, err := a.Keys(t.Context()); err != nil || !k.Settled || k.Nodes[0].Secret != k.Keys[0].Mark {
		t.Errorf("keys %+v, %v", k, err)
	}
	put("a secret that nobody had before")
	a.eventually("the nodes hear each other with the secret of the file", func() bool { return heard(all) })
	if k := settled(t, a, 2); k.Number != 0 || k.Mark != keyring.Mark("a secret that nobody had before") {
		t.Errorf("key %+v", k)
	}
}
