package main

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"proxyd/internal/control"
)

// site is a configuration that answers on address with body.
func site(address, body string) string {
	return "[listener.web]\naddress = \"" + address + "\"\n[[route]]\nname = \"site\"\nrespond = { body = \"" + body + "\" }\n"
}

func TestReloadSaysWhatChanged(t *testing.T) {
	address := port(t)
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
	address := port(t)
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
