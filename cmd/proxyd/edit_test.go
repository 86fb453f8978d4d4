package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"proxyd/internal/control"
	"proxyd/internal/freeport"
)

func (p *program) put(text string) (*control.Reload, error) {
	return p.Edit(p.t.Context(), control.Edit{Put: &control.File{Name: "stdin", Text: text}})
}

func (p *program) mustEdit(e control.Edit) {
	p.t.Helper()
	if _, err := p.Edit(p.t.Context(), e); err != nil {
		p.t.Fatal(err)
	}
}

func TestChangesAtRunTimeStayOverARestartAndFailNothing(t *testing.T) {
	address, second := freeport.Address(t), freeport.Address(t)
	a, b, c := newBackend(t), newBackend(t), newBackend(t)
	p := launch(t, balanced(address, a, b))
	l := pour(t, "http://"+address)

	p.mustEdit(control.Edit{Add: &control.NewServer{Pool: "app", Addr: c.address}})
	p.eventually("the new server is given requests", func() bool { return c.served.Load() > 0 })
	p.mustEdit(control.Edit{Remove: &control.Thing{Kind: "server", Name: "app/" + a.address}})
	served := a.served.Load() + 4 // what was in progress
	if _, err := p.put(fmt.Sprintf("[pool.new]\nservers = [%q]\n[listener.alt]\naddress = %q\n[[route]]\nname = \"new\"\nlistener = \"alt\"\npool = \"new\"\n", a.address, second)); err != nil {
		t.Fatal(err)
	}
	if _, body := get(t, "http://"+second); body != a.address {
		t.Errorf("the new route on the new listener answers %q", body)
	}
	if n := a.served.Load(); n > served+1 {
		t.Errorf("the server that was removed got %d more requests", n-served)
	}
	want, err := p.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, failed := l.end(); failed != nil || n == 0 {
		t.Errorf("of %d requests failed: %v", n, failed)
	}

	_ = p.cmd.Process.Kill()
	<-p.done
	p.start()
	if got, err := p.Config(t.Context()); err != nil || got != want {
		t.Errorf("after a restart the configuration is\n%s\n(%v), want\n%s", got, err, want)
	}
	if r, err := p.Reload(t.Context()); err != nil || r.Changed {
		t.Errorf("a reload then = %+v, %v; want no change", r, err)
	}
	p.mustEdit(control.Edit{Remove: &control.Thing{Kind: "route", Name: "new"}})
	p.mustEdit(control.Edit{Remove: &control.Thing{Kind: "listener", Name: "alt"}})
	if _, err := http.Get("http://" + second); err == nil {
		t.Error("the listener that was removed answers")
	}
	p.mustEdit(control.Edit{Clear: true})
	if got := p.states(); len(got) != 2 || got[a.address] == "" || got[b.address] == "" {
		t.Errorf("after clear the servers are %v, want those of the file", got)
	}
}

func TestListenersMoveWithoutLossElsewhere(t *testing.T) {
	address, a := freeport.Address(t), newBackend(t)
	p := launch(t, balanced(address, a))
	l := pour(t, "http://"+address)
	for range 10 {
		moved := freeport.Address(t)
		if _, err := p.put(fmt.Sprintf("[listener.alt]\naddress = %q\n", moved)); err != nil {
			t.Fatal(err)
		}
		if status, _ := get(t, "http://"+moved); status != 200 {
			t.Errorf("the listener that moved answers %d", status)
		}
	}
	p.mustEdit(control.Edit{Remove: &control.Thing{Kind: "listener", Name: "alt"}})
	if n, failed := l.end(); failed != nil || n == 0 {
		t.Errorf("of %d requests to the other listener failed: %v", n, failed)
	}
}

func TestBadEditChangesNothing(t *testing.T) {
	address, a := freeport.Address(t), newBackend(t)
	p := launch(t, balanced(address, a))
	before, err := p.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		edit control.Edit
		kind error
		want string
	}{
		{"a pool in use", control.Edit{Remove: &control.Thing{Kind: "pool", Name: "app"}}, control.ErrInvalid, "is not defined"},
		{"a bad snippet", control.Edit{Put: &control.File{Name: "stdin", Text: "[pool.x]\nservers = [\"10.0.0.1\"]\n"}}, control.ErrInvalid, "stdin:2:12"},
		{"a listener on a port that is taken", control.Edit{Put: &control.File{Name: "stdin", Text: fmt.Sprintf("[listener.x]\naddress = %q\n", a.address)}}, control.ErrInvalid, "in use"},
		{"a server that is not there", control.Edit{Remove: &control.Thing{Kind: "server", Name: "app/10.9.9.9:80"}}, control.ErrRefused, "no such thing"},
	} {
		if _, err := p.Edit(t.Context(), c.edit); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %v, want %s", c.name, err, c.want)
		}
	}
	if _, err := p.Edit(t.Context(), control.Edit{Clear: true, DryRun: true}); err != nil {
		t.Errorf("dry run = %v", err)
	}
	// A change that cannot be kept is not made.
	state := filepath.Join(p.dir, "state")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Edit(t.Context(), control.Edit{Add: &control.NewServer{Pool: "app", Addr: "10.0.0.9:80"}}); !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), "undone") {
		t.Errorf("a change that cannot be kept = %v, want it undone", err)
	}
	if after, err := p.Config(t.Context()); err != nil || after != before {
		t.Errorf("after refused changes the configuration is\n%s\n(%v), want\n%s", after, err, before)
	}
}

func TestFileThatCollidesWithChangesIsRefusedWithTheCure(t *testing.T) {
	address, a := freeport.Address(t), newBackend(t)
	p := launch(t, balanced(address, a))
	if _, err := p.put("[pool.new]\nservers = [\"10.0.0.1:80\"]\nbalance = \"least_conn\"\n"); err != nil {
		t.Fatal(err)
	}
	p.write(balanced(address, a) + "[pool.new]\nservers = [\"10.0.0.2:80\"]\n")
	_, err := p.Reload(t.Context())
	if !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "changes.toml:") || !strings.Contains(err.Error(), "hactl changes drop pool new") {
		t.Fatalf("Reload = %v, want the collision and its cure", err)
	}
	p.mustEdit(control.Edit{Drop: &control.Thing{Kind: "pool", Name: "new"}})
	if r, err := p.Reload(t.Context()); err != nil || r.Changed {
		t.Errorf("Reload after the cure = %+v, %v; want the cure to have taken the file in", r, err)
	}
}
