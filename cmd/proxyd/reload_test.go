package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"proxyd/internal/control"
	"proxyd/internal/freeport"
)

// site is a configuration that answers on address with body.
func site(address, body string) string {
	return "[listener.web]\naddress = \"" + address + "\"\n[[route]]\nname = \"site\"\nrespond = { body = \"" + body + "\" }\n"
}

func TestReloadSaysWhatChanged(t *testing.T) {
	address := freeport.Address(t)
	p := launch(t, site(address, "one"))
	p.write(site(address, "two"))
	want := []string{`route.site.respond.body: "one" -> "two"`}

	would, err := p.Diff(t.Context(), control.File{})
	if err != nil || !slices.Equal(would.Changes, want) {
		t.Errorf("Diff of the own file = %+v, %v; want %v", would, err, want)
	}
	if _, body := get(t, "http://"+address); body != "one" {
		t.Errorf("after Diff the answer is %q, want one", body)
	}
	r, err := p.Reload(t.Context())
	if err != nil || !r.Changed || !slices.Equal(r.Changes, want) || r.Config != would.Config {
		t.Errorf("Reload = %+v, %v; want %v and configuration %s", r, err, want, would.Config)
	}
	if _, body := get(t, "http://"+address); body != "two" {
		t.Errorf("after Reload the answer is %q, want two", body)
	}
	if r, err := p.Reload(t.Context()); err != nil || r.Changed || len(r.Changes) != 0 {
		t.Errorf("a second Reload = %+v, %v; want no change", r, err)
	}
	p.write(site(address, "three"))
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	p.eventually("SIGHUP is a reload", func() bool { _, body := get(t, "http://"+address); return body == "three" })
}

func TestBadFileChangesNothing(t *testing.T) {
	address := freeport.Address(t)
	p := launch(t, site(address, "one"))
	bad := site(address, "two") + "[limits]\nconnz = 1\nbody = 5\n"
	p.write(bad)
	_, err := p.Reload(t.Context())
	if !errors.Is(err, control.ErrInvalid) || strings.Count(err.Error(), p.file+":") != 2 {
		t.Errorf("Reload of a file with two errors = %v; want both, with their places", err)
	}
	if _, err := p.Diff(t.Context(), control.File{Name: "/x/new.toml", Text: bad}); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "/x/new.toml:") {
		t.Errorf("Diff of a bad file = %v; want it refused by its own name", err)
	}
	if _, body := get(t, "http://"+address); body != "one" {
		t.Errorf("the answer is %q, want one", body)
	}
	if n := p.metric(`proxyd_config_reloads_total{result="invalid"}`); n != 1 {
		t.Errorf("%v reloads are counted as refused, want 1", n)
	}
}

func TestWatchSeesEachWayOfWriting(t *testing.T) {
	address := freeport.Address(t)
	watched := func(body string) string {
		return "include = \"conf.d/*.toml\"\nnode.watch = true\n" + site(address, body)
	}
	p := launch(t, watched("one"))
	says := func(body string) func() bool {
		return func() bool { _, got := get(t, "http://"+address); return got == body }
	}
	p.write(watched("two")) // by a rename
	p.eventually("a file put in its place is read", says("two"))

	text, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.file, []byte(strings.Replace(string(text), `"two"`, `"three"`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	p.eventually("a file written in place is read", says("three"))

	p.write(watched("four") + "[limits]\nconnz = 1\n")
	p.eventually("a bad file is told of and counted", func() bool {
		return strings.Contains(p.log.String(), "connz") && p.metric(`proxyd_config_reloads_total{result="invalid"}`) == 1
	})
	if !says("three")() {
		t.Error("a bad file changed the answer")
	}

	// The directory of an include comes, with a file; then the file changes alone.
	dir := filepath.Join(p.dir, "conf.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	extra := func(path string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "a.toml"), []byte("[[route]]\nname = \"more\"\npath = \""+path+"\"\nrespond = { body = \"more\" }\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	more := func(path string) func() bool {
		return func() bool { _, got := get(t, "http://"+address+path); return got == "more" }
	}
	extra("/more")
	p.write(watched("five"))
	p.eventually("what is included is read", more("/more"))
	extra("/other")
	p.eventually("a change of what is included is read", more("/other"))

	p.write(strings.Replace(watched("six"), "node.watch = true", "", 1))
	p.eventually("watching is ended by the file", says("six"))
}

func TestProgramThatWasReplacedIsSeen(t *testing.T) {
	dir := t.TempDir()
	path, before := filepath.Join(dir, "proxyd"), filepath.Join(dir, "before")
	for _, f := range []string{path, path + ".new"} {
		if err := os.WriteFile(f, []byte("program"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(path, before); err != nil { // as /proc/self/exe goes on leading to it
		t.Fatal(err)
	}
	if replaced(before, path) {
		t.Error("the program is the one that runs")
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if !replaced(before, path) {
		t.Error("another program lies there")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if replaced(before, path) {
		t.Error("there is no program to take into use")
	}
}
