package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/proxy"
)

var serverA = proxy.ServerName{Pool: "web", Server: "10.0.0.1:80"}

// having is a configuration with the servers given, all of pool web, and a route.
func having(servers ...string) *config.Config {
	p := &config.Pool{Name: "web"}
	for _, s := range servers {
		p.Server = append(p.Server, config.Server{Addr: s})
	}
	return &config.Config{Pool: map[string]*config.Pool{"web": p}, Route: []*config.Route{{Name: "site", Pool: "web"}}}
}

func opened(t *testing.T, dir, node string) *overrides {
	t.Helper()
	o, err := openOverrides(dir, newShared(node))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func drained(name proxy.ServerName, node string) control.Override {
	return control.Override{Pool: name.Pool, Server: name.Server, Mode: "drain", Node: node}
}

func TestOverridesOutliveTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	o := opened(t, dir, "edge-1")
	if err := o.put(serverKey(serverA), drained(serverA, "edge-1")); err != nil {
		t.Fatal(err)
	}
	if err := o.put(routeKey("site"), control.Override{Route: "site", Status: 503}); err != nil {
		t.Fatal(err)
	}
	if err := o.save(); err != nil {
		t.Fatal(err)
	}
	again := opened(t, dir, "edge-1")
	if got := list(again.wanted(having("10.0.0.1:80"))); len(got) != 2 || got[0].Mode != "drain" || got[1].Status != 503 {
		t.Errorf("the next life has %+v", got)
	}
	if err := again.put(serverKey(serverA), control.Override{Pool: "web", Server: "10.0.0.1:80"}); err != nil {
		t.Fatal(err)
	}
	if err := again.save(); err != nil {
		t.Fatal(err)
	}
	if got := list(opened(t, dir, "edge-1").wanted(having("10.0.0.1:80"))); len(got) != 1 || got[0].Route != "site" {
		t.Errorf("after it was taken back the next life has %+v", got)
	}
}

func TestOverrideOfWhatLeftTheFileDoesNotComeBack(t *testing.T) {
	dir := t.TempDir()
	o := opened(t, dir, "edge-1")
	key := serverKey(serverA)
	if err := o.put(key, drained(serverA, "edge-1")); err != nil {
		t.Fatal(err)
	}
	o.drop(o.wanted(having("10.0.0.1:80")))
	if gone := o.drop(o.wanted(having("10.0.0.2:80"))); len(gone) != 1 || gone[0] != key {
		t.Errorf("gone with the server = %v, want its override", gone)
	}
	if err := o.save(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []*overrides{o, opened(t, dir, "edge-1")} {
		if got := o.wanted(having("10.0.0.1:80")); len(got) != 0 {
			t.Errorf("the server came back with %v", got)
		}
	}
	if err := o.put(key, drained(serverA, "edge-1")); err != nil {
		t.Fatal(err)
	}
	if got := o.wanted(having("10.0.0.1:80")); len(got) != 1 {
		t.Error("a new wish about it is not heard")
	}
}

func TestNodesAgreeOnOverrides(t *testing.T) {
	a, b := opened(t, t.TempDir(), "edge-1"), opened(t, t.TempDir(), "edge-2")
	meet := func() {
		t.Helper()
		for _, err := range []error{a.shared.Merge(b.shared.Encode(1)), b.shared.Merge(a.shared.Encode(1))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	key, c := serverKey(serverA), having("10.0.0.1:80")
	if err := a.put(key, drained(serverA, "edge-1")); err != nil {
		t.Fatal(err)
	}
	meet()
	select {
	case <-b.shared.heard:
	default:
		t.Error("the other node is not told")
	}
	if got := b.wanted(c)[key]; got.Mode != "drain" || got.Node != "edge-1" {
		t.Errorf("the other node has %+v", got)
	}
	// The node that loses the server first must not undo the drain where it still is.
	a.drop(a.wanted(c))
	a.drop(a.wanted(having()))
	meet()
	if got := b.wanted(c)[key]; got.Mode != "drain" {
		t.Errorf("after the server left the file of one node the other has %+v", got)
	}
	// The last writer wins, whoever it is.
	if err := b.put(key, control.Override{Pool: "web", Server: "10.0.0.1:80", Mode: "maint", Node: "edge-2"}); err != nil {
		t.Fatal(err)
	}
	meet()
	if got := a.wanted(c)[key]; got.Mode != "maint" {
		t.Errorf("after the other node's wish this one has %+v", got)
	}
}

func TestBadStateCostsPersistenceAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "overrides.json")
	if err := os.WriteFile(file, []byte(`[{"key":"ser`), 0o640); err != nil {
		t.Fatal(err)
	}
	o, err := openOverrides(dir, newShared("edge-1"))
	if err == nil || !strings.Contains(err.Error(), file+".bad") {
		t.Errorf("open = %v, want it to say where the bad file went", err)
	}
	if err := o.put(serverKey(serverA), drained(serverA, "edge-1")); err != nil {
		t.Fatal(err)
	}
	o.file = filepath.Join(file+".bad", "overrides.json") // a directory that cannot be
	if err := o.save(); err == nil || o.unsaved == nil {
		t.Error("a file that cannot be written is not told of")
	}
	if len(o.wanted(having("10.0.0.1:80"))) != 1 {
		t.Error("the override is lost with the file")
	}
	o.file = file
	if err := o.save(); err != nil || o.unsaved != nil {
		t.Errorf("save with the disk well again = %v", err)
	}
}

func TestLongNamesAreKept(t *testing.T) {
	a := proxy.ServerName{Pool: "web", Server: strings.Repeat("a.", 126) + "com:80"}
	o := opened(t, t.TempDir(), "edge-1")
	if err := o.put(serverKey(a), drained(a, "edge-1")); err != nil {
		t.Fatal(err)
	}
	if got := list(o.wanted(having(a.Server))); len(got) != 1 || got[0].Server != a.Server {
		t.Errorf("wanted = %+v", got)
	}
}
