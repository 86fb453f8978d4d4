package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"proxyd/internal/control"
)

// fake is an operator that answers what a test gave it.
type fake struct {
	control.Operator
	reload   control.Reload
	err      error
	file     control.File
	asked    string
	upgraded int    // times that it was asked to
	secret   string // file of the secret that the configuration names
}

func (f *fake) Diff(_ context.Context, file control.File) (*control.Reload, error) {
	f.file = file
	return &f.reload, f.err
}

func (f *fake) Upgrade(context.Context, control.Upgrade) (*control.Upgraded, error) {
	f.upgraded++
	return &control.Upgraded{From: control.Version{Version: "1.0"}, To: control.Version{Version: "1.1"}}, f.err
}

func (f *fake) Reload(context.Context) (*control.Reload, error) { return &f.reload, f.err }

// hactl runs a command line against op and returns what it printed and its exit code.
func hactl(t *testing.T, op control.Operator, args ...string) (out string, code int) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := control.ListenSocket(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	pages := control.Pages{Metrics: http.NotFoundHandler(), Ready: func() (bool, string) { return true, "" }}
	go func() { done <- control.Serve(ctx, l, control.SocketHandler(op, pages, slog.New(slog.DiscardHandler))) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	var b bytes.Buffer
	cmd := root()
	cmd.SetArgs(append([]string{"--socket", socket}, args...))
	cmd.SetOut(&b)
	cmd.SetErr(io.Discard)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		b.WriteString(err.Error())
		return b.String(), exitCode(err)
	}
	return b.String(), 0
}

func TestDiffTellsByItsExitCode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new.toml")
	if err := os.WriteFile(file, []byte("[node]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	differs := control.Reload{Changed: true, Changes: []string{"limits.body: 1MiB -> 2MiB"}}
	for _, c := range []struct {
		name string
		op   fake
		args []string
		code int
		says string
	}{
		{"same", fake{}, []string{"diff", file}, 0, "nothing would change"},
		{"differs", fake{reload: differs}, []string{"diff", file}, 1, differs.Changes[0]},
		{"json", fake{reload: differs}, []string{"diff", file, "-o", "json"}, 1, `"changed": true`},
		{"bad", fake{err: control.Invalid("new.toml:3:1: no")}, []string{"diff", file}, exitConfig, "new.toml:3:1: no"},
		{"no such file", fake{}, []string{"diff", file + ".none"}, exitConfig, "no such file"},
		{"two files", fake{}, []string{"diff", file, file}, exitUsage, "too many"},
		{"dry run", fake{reload: differs}, []string{"reload", "--dry-run"}, 0, "would be in force"},
		{"reload", fake{reload: differs}, []string{"reload"}, 0, differs.Changes[0]},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, code := hactl(t, &c.op, c.args...)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("hactl %v = code %d, %q; want code %d and %q", c.args, code, out, c.code, c.says)
			}
			if c.args[0] == "diff" && code < exitUsage && (c.op.file.Name != file || c.op.file.Text != "[node]\n") {
				t.Errorf("hactl sent %+v", c.op.file)
			}
		})
	}
}

func TestReloadTakesAnInstalledProgramIntoUseWhereItIsAskedTo(t *testing.T) {
	for _, c := range []struct {
		name   string
		binary bool
		args   []string
		want   int
		says   string
	}{
		{"nothing was installed", false, []string{"reload", "--upgrade"}, 0, "nothing changed"},
		{"it is not asked to", true, []string{"reload"}, 0, "hactl upgrade takes it into use"},
		{"it is asked to", true, []string{"reload", "--upgrade"}, 1, "upgraded 1.0 -> 1.1"},
	} {
		f := &fake{reload: control.Reload{Config: "abc", Binary: c.binary}}
		out, code := hactl(t, f, c.args...)
		if code != 0 || f.upgraded != c.want || !strings.Contains(out, c.says) {
			t.Errorf("%s: %q, exit code %d, upgraded %d times, want %d", c.name, out, code, f.upgraded, c.want)
		}
	}
}
