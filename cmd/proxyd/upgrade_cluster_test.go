package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"proxyd/internal/control"
)

// The others must not notice that a process was replaced: the same life goes on.
func TestAnUpgradeIsNoNewLifeToTheOthers(t *testing.T) {
	const conf = "pool.web.servers = [\"127.0.0.1:9\"]\nlistener.web.address = \"127.0.0.1:0\"\nroute = [{ pool = \"web\" }]\n"
	all := launchCluster(t, 3, conf)
	p := &upgraded{all[1], all[1].cmd.Process.Pid}
	for range 2 {
		p.upgrade("")
		for i := 0; i < 20; i++ {
			for _, o := range all {
				st, err := o.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range st.Nodes {
					if n.State == "unheard" {
						t.Fatalf("%s does not hear %s: %s", st.Node, n.Name, n.Reason)
					}
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	for _, o := range []*program{all[0], all[2]} {
		if said := o.log.String(); strings.Contains(said, "node lost") {
			t.Errorf("a peer noticed:\n%s", said)
		}
	}
	if said := all[1].log.String(); strings.Contains(said, "asleep") {
		t.Errorf("the pause was too long:\n%s", said)
	}
	// What is known of the present voters would be of no use to others.
	all[1].write(strings.Replace(conf, "pool", "cluster.arbiter = [\"192.0.2.1\"]\npool", 1))
	if _, err := p.Upgrade(t.Context(), control.Upgrade{}); !errors.Is(err, control.ErrRefused) {
		t.Errorf("an upgrade into another cluster: %v, want it refused", err)
	}
}

// betray has the conversation of a process that comes up to the word by which it decides.
func betray() {
	p, err := findPredecessor()
	if err == nil {
		err = p.line.Send(answerTime, sayReady, nil)
	}
	if err == nil {
		_, err = p.hear(sayState, answerTime, nil)
	}
	if err == nil {
		err = p.line.Send(answerTime, saySet, nil)
	}
	if err == nil {
		_, err = p.hear(sayYours, answerTime, nil)
	}
	fmt.Fprintln(os.Stderr, "the traitor ends:", err)
	os.Exit(3)
}

// There is no way back from yours but to begin anew.
func TestAnUpgradeThatDiesInTheMomentOfChangeIsARestart(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	traitor := filepath.Join(t.TempDir(), "traitor")
	if err := os.WriteFile(traitor, []byte("#!/bin/sh\n"+asTraitor+"=1 exec "+self+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = all[0].Upgrade(ctx, control.Upgrade{Binary: traitor})
	if err == nil || !strings.Contains(err.Error(), "the traitor ends: <nil>") {
		t.Fatalf("Upgrade = %v, want that the process ended after yours", err)
	}
	all[0].eventually("both hear each other again", func() bool { return heard(all) })
	if _, err := all[0].Reload(ctx); err != nil {
		t.Errorf("a reload after it: %v", err)
	}
	wantAnswers(t, "after it", all, 200)
}
