package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"proxyd/internal/control"
)

// apply applies a text from the first node, with a short canary.
func (p *program) apply(text string) (*control.Applied, error) {
	return p.Apply(p.t.Context(), control.Apply{File: control.File{Name: "/home/ann/new.toml", Text: text}, CanaryMS: 300, By: "ann", Comment: "a test"})
}

// shared is what all nodes of a test have in their files beside what is their own.
func (p *program) shared(text string) string {
	var keep []string
	for line := range strings.Lines(p.above) {
		if !strings.HasPrefix(line, "cluster.bind") {
			keep = append(keep, line)
		}
	}
	return "log.access = false\n" + strings.Join(keep, "") + text
}

// answers reports what status each node answers with.
func answers(t *testing.T, all []*program) []int {
	t.Helper()
	var out []int
	for _, p := range all {
		status, _ := get(t, "http://"+p.address)
		out = append(out, status)
	}
	return out
}

func wantAnswers(t *testing.T, when string, all []*program, want int) {
	t.Helper()
	for i, got := range answers(t, all) {
		if got != want {
			t.Errorf("%s: edge-%d answers %d, want %d", when, i+1, got, want)
		}
	}
}

// files are the main files of all nodes.
func files(t *testing.T, all []*program) []string {
	t.Helper()
	var out []string
	for _, p := range all {
		text, err := os.ReadFile(p.file)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(text))
	}
	return out
}

func TestApplyReachesEveryNodeAndRollbackTakesItBack(t *testing.T) {
	all := launchCluster(t, 3, answering(200))
	a := all[0]
	before := files(t, all)

	dry, err := a.Apply(t.Context(), control.Apply{File: control.File{Name: "/home/ann/new.toml", Text: a.shared(answering(201))}, DryRun: true})
	if err != nil || len(dry.Nodes) != 3 || len(dry.Nodes[0].Changes) != 1 || !strings.Contains(dry.Nodes[0].Changes[0], "respond") {
		t.Fatalf("dry run = %+v, %v", dry, err)
	}
	wantAnswers(t, "after a dry run", all, 200)

	r, err := a.apply(a.shared(answering(201)))
	if err != nil {
		t.Fatal(err)
	}
	if r.Generation != 2 || len(r.Nodes) != 3 {
		t.Errorf("applied %+v", r)
	}
	wantAnswers(t, "after apply", all, 201)
	for i, text := range files(t, all) {
		if !strings.Contains(text, "status = 201") || !strings.Contains(text, fmt.Sprintf("edge-%d", i+1)) || !strings.Contains(text, fmt.Sprintf("cluster.bind = \"127.0.0.%d:", 11+i)) {
			t.Errorf("the file of edge-%d:\n%s", i+1, text)
		}
	}
	for _, p := range all { // kept over a restart, and as the file says
		g, err := p.Generations(t.Context())
		if err != nil || len(g) != 2 || g[0].State != "found" || g[1].State != "applied" || !g[1].Current || g[1].By != "ann" || g[1].Comment != "a test" {
			t.Errorf("generations %+v, %v", g, err)
		}
	}
	if n := a.metric(`proxyd_cluster_applies_total{result="ok"}`); n != 1 {
		t.Errorf("applies = %v", n)
	}
	if r, err := a.Reload(t.Context()); err != nil || r.Changed {
		t.Errorf("a reload after apply changes %+v, %v", r, err)
	}

	if r, err = a.Rollback(t.Context(), control.Rollback{CanaryMS: 100, By: "ann"}); err != nil || r.Generation != 3 {
		t.Fatalf("rollback = %+v, %v", r, err)
	}
	wantAnswers(t, "after rollback", all, 200)
	for i, text := range files(t, all) {
		if text != before[i] {
			t.Errorf("the file of edge-%d after rollback:\n%s\nwas\n%s", i+1, text, before[i])
		}
	}
	if _, err = a.Rollback(t.Context(), control.Rollback{CanaryMS: 100}); !errors.Is(err, control.ErrRefused) {
		t.Errorf("rollback of what is before the first = %v", err)
	}
	if _, err = a.Rollback(t.Context(), control.Rollback{Generation: 2, CanaryMS: 100}); err != nil {
		t.Fatal(err)
	}
	wantAnswers(t, "after rollback to 2", all, 201)
}

func TestBadConfigurationIsRefusedByEveryNodeByName(t *testing.T) { // G9
	all := launchCluster(t, 2, answering(200))
	before := files(t, all)
	_, err := all[0].apply(all[0].shared("[[route]]\nnam = \"all\"\nrespond = { status = 200 }\n"))
	if !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "edge-1, edge-2: /home/ann/new.toml:") || !strings.Contains(err.Error(), `"nam"`) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("apply = %v", err)
	}
	// One that is bad on one node alone: its own changes need what the file no longer has.
	if _, err := all[1].Edit(t.Context(), control.Edit{Put: &control.File{Name: "x", Text: "[[route]]\nname = \"more\"\npath = \"/more\"\nrespond = { status = 204 }\n"}}); err != nil {
		t.Fatal(err)
	}
	_, err = all[0].apply(all[0].shared(answering(200) + "[[route]]\nname = \"more\"\npath = \"/more\"\nrespond = { status = 205 }\n"))
	if !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "edge-2: ") || strings.Contains(err.Error(), "edge-1") {
		t.Errorf("apply = %v, want it refused by edge-2 alone", err)
	}
	for i, text := range files(t, all) {
		if text != before[i] {
			t.Errorf("the file of edge-%d changed", i+1)
		}
	}
	if g, err := all[0].Generations(t.Context()); err != nil || len(g) != 0 {
		t.Errorf("generations %+v, %v; want none", g, err)
	}
	if n := all[0].metric(`proxyd_cluster_applies_total{result="refused"}`); n != 2 {
		t.Errorf("refused = %v", n)
	}
}

// What a node could not put back it must not take on trial.
func TestApplyIsRefusedWhereNoGenerationCanBeKept(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	if err := os.WriteFile(all[1].dir+"/state/generations", nil, 0o640); err != nil { // no directory, for root too
		t.Fatal(err)
	}
	_, err := all[0].apply(all[0].shared(answering(201)))
	if !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), "edge-2: what to put back cannot be kept") || strings.Contains(err.Error(), "rolled back") {
		t.Errorf("apply = %v, want it refused before anything is changed", err)
	}
	wantAnswers(t, "after a refused apply", all, 200)
}

// What this host does not have is found before the cluster part leaves for it.
func TestAPathThatThereIsNotMovesNothing(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	text := "cluster.paths = [\"nowhere7\"]\n" + answering(200)
	if _, err := all[0].apply(all[0].shared(text)); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), `cluster.paths: heartbeat path "nowhere7"`) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("apply = %v", err)
	}
	all[0].write(text)
	if _, err := all[0].Reload(t.Context()); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "nowhere7") {
		t.Errorf("reload = %v", err)
	}
	for i, p := range all {
		if strings.Contains(p.log.String(), "starts anew") {
			t.Errorf("the cluster part of edge-%d left", i+1)
		}
	}
}

func TestIncludedFilesAreAppliedAndTakenAway(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	main := "include = [\"conf.d/*.toml\"]\n" + all[0].shared("[listener.web]\naddress = \"127.0.0.1:1\"\n")
	route := "[[route]]\nname = \"all\"\nrespond = { status = 202 }\n"
	apply := func(names ...string) {
		t.Helper()
		a := control.Apply{File: control.File{Name: "/home/ann/new.toml", Text: main}, CanaryMS: 1}
		for i, name := range names {
			text := route
			if i > 0 {
				text = strings.ReplaceAll(route, "name = \"all\"", "path = \"/two\"")
			}
			a.Included = append(a.Included, control.File{Name: "/home/ann/conf.d/" + name, Text: text})
		}
		if _, err := all[0].Apply(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	have := func() string {
		var out []string
		for _, p := range all {
			names, _ := filepath.Glob(p.dir + "/conf.d/*")
			for _, n := range names {
				out = append(out, p.name+" "+filepath.Base(n))
			}
		}
		return strings.Join(out, ", ")
	}
	apply("one.toml", "two.toml")
	wantAnswers(t, "with includes", all, 202)
	if got := have(); got != "edge-1 one.toml, edge-1 two.toml, edge-2 one.toml, edge-2 two.toml" {
		t.Errorf("files are %s", got)
	}
	apply("one.toml")
	if got := have(); got != "edge-1 one.toml, edge-2 one.toml" {
		t.Errorf("files are %s", got)
	}
	if _, err := all[1].Rollback(t.Context(), control.Rollback{CanaryMS: 1}); err != nil {
		t.Fatal(err)
	}
	if got := have(); got != "edge-1 one.toml, edge-1 two.toml, edge-2 one.toml, edge-2 two.toml" {
		t.Errorf("after rollback files are %s", got)
	}
}

func TestApplyThatMakesRequestsFailIsRolledBackEverywhere(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	before := files(t, all)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				for _, p := range all {
					_, _ = get(t, "http://"+p.address)
				}
			}
		}
	}()
	_, err := all[0].Apply(t.Context(), control.Apply{File: control.File{Name: "new.toml", Text: all[0].shared(answering(500))}, CanaryMS: 5000})
	close(stop)
	<-done
	if !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), "requests failed") || !strings.Contains(err.Error(), "rolled back on edge-1") {
		t.Errorf("apply = %v", err)
	}
	wantAnswers(t, "after it was rolled back", all, 200)
	for i, text := range files(t, all) {
		if text != before[i] {
			t.Errorf("the file of edge-%d changed", i+1)
		}
	}
	if n := all[0].metric(`proxyd_cluster_applies_total{result="rolled_back"}`); n != 1 {
		t.Errorf("rolled_back = %v", n)
	}
	if n := all[0].metric(`proxyd_config_reloads_total{result="rolled_back"}`); n != 1 {
		t.Errorf("reloads rolled back = %v", n)
	}
}

func TestTwoAppliesAtOnceAreOneAndARefusal(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	errs := make(chan error, 2)
	for i, p := range all {
		go func() { // ends with its apply
			_, err := p.Apply(t.Context(), control.Apply{File: control.File{Name: "new.toml", Text: p.shared(answering(201 + i))}, CanaryMS: 700, By: p.name})
			errs <- err
		}()
	}
	one, two := <-errs, <-errs
	if one == nil {
		one, two = two, one
	}
	if two != nil || !errors.Is(one, control.ErrRefused) || !strings.Contains(one.Error(), "already, by edge-") {
		t.Errorf("applies = %v, %v; want one done and one refused", one, two)
	}
	got := answers(t, all)
	if got[0] != got[1] || got[0] == 200 {
		t.Errorf("nodes answer %v", got)
	}
	if _, err := all[0].apply(all[0].shared(answering(203))); err != nil {
		t.Errorf("apply after that = %v", err)
	}
}

func TestNodeLostInTheMidstOfAnApplyRollsItBack(t *testing.T) {
	all := launchCluster(t, 3, answering(200))
	done := make(chan error, 1)
	go func() { // ends with the apply
		_, err := all[0].Apply(t.Context(), control.Apply{File: control.File{Name: "new.toml", Text: all[0].shared(answering(201))}, CanaryMS: 6000})
		done <- err
	}()
	all[0].eventually("edge-1 has it", func() bool { return answers(t, all[:1])[0] == 201 })
	_ = all[2].cmd.Process.Kill()
	<-all[2].done
	err := <-done
	if !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), "edge-3") || !strings.Contains(err.Error(), "missing") {
		t.Errorf("apply = %v", err)
	}
	wantAnswers(t, "after a node was lost", all[:2], 200)
	all[2].start()
	wantAnswers(t, "after it is back", all, 200)
	all[0].eventually("all nodes hear each other", func() bool { return heard(all) })
	if _, err := all[0].apply(all[0].shared(answering(203))); err != nil {
		t.Errorf("apply after that = %v", err)
	}
}

func TestNodeThatCrashesOnTrialPutsBackWhatWasThere(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	before := files(t, all)
	done := make(chan error, 1)
	go func() { // ends with the apply, whose node is killed
		_, err := all[0].Apply(t.Context(), control.Apply{File: control.File{Name: "new.toml", Text: all[0].shared(answering(201))}, CanaryMS: 6000})
		done <- err
	}()
	all[0].eventually("edge-1 has it", func() bool { return answers(t, all[:1])[0] == 201 })
	_ = all[0].cmd.Process.Kill() // both a node on trial and the one that applies
	<-all[0].done
	if err := <-done; err == nil {
		t.Error("the apply of a killed node is done")
	}
	all[0].start()
	wantAnswers(t, "after a crash", all, 200)
	for i, text := range files(t, all) {
		if text != before[i] {
			t.Errorf("the file of edge-%d changed", i+1)
		}
	}
	g, err := all[0].Generations(t.Context())
	if err != nil || len(g) != 2 || g[1].State != "rolled back" || !g[0].Current {
		t.Errorf("generations %+v, %v", g, err)
	}
}

func TestNodeWithoutANodeThatAppliesPutsBackWhatWasThere(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	done := make(chan error, 1)
	go func() { // ends with the apply, whose node is killed
		_, err := all[1].Apply(t.Context(), control.Apply{File: control.File{Name: "new.toml", Text: all[0].shared(answering(201))}, CanaryMS: 9000})
		done <- err
	}()
	all[0].eventually("edge-1 has it", func() bool { return answers(t, all[:1])[0] == 201 })
	_ = all[1].cmd.Process.Kill()
	<-all[1].done
	<-done
	deadline := time.Now().Add(lockTime + 5*time.Second)
	for answers(t, all[:1])[0] != 200 {
		if time.Now().After(deadline) {
			t.Fatal("edge-1 keeps a generation that nobody has taken to stay")
		}
		time.Sleep(200 * time.Millisecond)
	}
	all[1].start()
	all[0].eventually("all nodes hear each other", func() bool { return heard(all) })
	if _, err := all[0].apply(all[0].shared(answering(203))); err != nil {
		t.Errorf("apply after that = %v", err)
	}
}

func TestANodeThatBecomesUnfitFailsATrial(t *testing.T) {
	ill := health{Unfit: "its listener does not answer"}
	for _, c := range []struct {
		name   string
		before health
		looks  []health
		bad    bool
	}{
		{"unfit in look after look", health{}, slices.Repeat([]health{ill}, badLooks), true},
		{"unfit for a moment", health{}, append(slices.Repeat([]health{ill}, badLooks-1), health{}, ill), false},
		{"as unfit as before", ill, slices.Repeat([]health{ill}, 2*badLooks), false},
	} {
		var w watched
		var err error
		for _, h := range c.looks {
			err = errors.Join(err, w.fit(h, c.before))
		}
		if (err != nil) != c.bad {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
