package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"proxyd/internal/backup"
	"proxyd/internal/control"
)

func (f *fake) Backup(context.Context) (*control.Backup, error) {
	return &control.Backup{Cluster: "edge", Node: "edge-1", Address: "10.0.0.11:7946", Main: "/etc/proxyd/proxyd.toml", State: "/var/lib/proxyd", Config: "abc",
		Secrets: []string{"file:" + f.secret},
		Files:   []control.BackupFile{{Name: "config/proxyd.toml", Data: []byte("cluster.join = [\"10.0.0.11\", \"10.0.0.12\"]\n")}, {Name: "state/term", Data: []byte("1000\n")}}}, f.err
}

// Version fails as if no proxyd ran here.
func (f *fake) Version(context.Context) (*control.Version, error) { return nil, errors.New("not here") }

func (f *fake) Member(_ context.Context, w control.MemberWish) (*control.Applied, error) {
	f.asked = strings.TrimSpace(fmt.Sprint("member ", w.Op, " ", w.Node, " ", w.Address))
	return &control.Applied{Generation: 3, Nodes: []control.AppliedNode{{Name: "edge-1", Config: "abc", Changes: []string{"cluster.join: changed"}}}}, f.err
}

func (f *fake) Apply(_ context.Context, a control.Apply) (*control.Applied, error) {
	f.asked = fmt.Sprint("apply ", filepath.Base(a.File.Name), " ", len(a.Included), " ", a.CanaryMS, " ", a.DryRun, " ", a.Comment, " ", a.Without)
	return &control.Applied{Generation: 7, DryRun: a.DryRun, Nodes: []control.AppliedNode{{Name: "edge-1", Holder: true, Config: "abc"}}}, f.err
}

func (f *fake) Rollback(_ context.Context, w control.Rollback) (*control.Applied, error) {
	f.asked = fmt.Sprint("rollback ", w.Generation)
	return &control.Applied{Generation: 8}, f.err
}

func (f *fake) Generations(context.Context) ([]control.Generation, error) {
	return []control.Generation{{Number: 7, By: "ann", On: "edge-1", Config: "abc", State: "applied", Current: true, Comment: "a pool"}}, f.err
}

func TestWhatIsForAllNodesIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "new.toml")
	if err := os.MkdirAll(dir+"/conf.d", 0o750); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"new.toml": "include = [\"conf.d/*.toml\"]\n", "conf.d/a.toml": "[[route]]\nrespond = { status = 200 }\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		line, asked string
		code        int
		says        string
	}{
		{"apply " + file + " --canary 30s --comment pool", "apply new.toml 1 30000 false pool []", 0, "generation 7 is in force"},
		{"apply " + file + " --dry-run --without edge-3", "apply new.toml 1 5000 true  [edge-3]", 0, "every node would take it"},
		{"apply " + file + " --canary -1s", "", exitUsage, "negative"},
		{"apply " + dir + "/none.toml", "", exitConfig, "none.toml"},
		{"apply", "", exitUsage, "usage"},
		{"rollback", "rollback 0", 0, "generation 8 is in force"},
		{"rollback 5", "rollback 5", 0, ""},
		{"rollback last", "", exitUsage, "number of a generation"},
		{"generations", "", 0, "applied, in force"},
		{"config --generations", "", 0, "ann"},
		{"member add 10.0.0.13", "member add  10.0.0.13", 0, "cluster.join: changed"},
		{"member remove edge-2", "member remove edge-2", 0, ""},
		{"member replace edge-2 10.0.0.13", "member replace edge-2 10.0.0.13", 0, "generation 3"},
		{"member replace edge-2", "", exitUsage, "usage"},
	} {
		f := &fake{}
		out, code := hactl(t, f, strings.Fields(c.line)...)
		if f.asked != c.asked || code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("hactl %s = code %d, asked %q, said %q; want code %d, %q and %q", c.line, code, f.asked, out, c.code, c.asked, c.says)
		}
	}
}

func TestBackupIsSealedAndRestored(t *testing.T) {
	dir := t.TempDir()
	f := &fake{secret: dir + "/cluster.key"}
	for name, text := range map[string]string{"cluster.key": "a secret of the cluster", "word": "correct horse battery\n", "other": "another passphrase\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := hactl(t, f, "backup", dir+"/plain"); code != 0 {
		t.Errorf("backup = %d, %q", code, out)
	}
	if text, err := os.ReadFile(dir + "/plain"); err != nil {
		t.Error(err)
	} else if a, err := backup.Read(bytes.NewReader(text)); err != nil || a.Secrets[0].Have != "no" || len(a.In(backup.SecretsDir)) != 0 || a.Sealed() {
		t.Errorf("the plain backup is %+v, %v", a, err)
	}
	if out, code := hactl(t, f, "backup", dir+"/file", "--passphrase-file", dir+"/word"); code != 0 {
		t.Fatalf("backup = %d, %q", code, out)
	}
	if info, err := os.Stat(dir + "/file"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup is %v, %v", info, err)
	}
	if err := os.Remove(dir + "/cluster.key"); err != nil {
		t.Fatal(err)
	}
	restore := func(word string) (string, int) {
		return hactl(t, f, "restore", dir+"/file", "--config", dir+"/new/proxyd.toml", "--state", dir+"/state", "--name", "edge-3",
			"--address", "10.0.0.13:7946", "--passphrase-file", dir+"/"+word)
	}
	if out, code := restore("other"); code != exitRefused {
		t.Errorf("restore with another passphrase = %d, %q", code, out)
	}
	if out, code := restore("word"); code != 0 {
		t.Fatalf("restore = %d, %q", code, out)
	}
	main, err := os.ReadFile(dir + "/new/proxyd.toml")
	if err != nil || !strings.Contains(string(main), `"10.0.0.13", "10.0.0.12"`) || !strings.Contains(string(main), `name = "edge-3"`) {
		t.Errorf("restored %q, %v", main, err)
	}
	if text, err := os.ReadFile(dir + "/cluster.key"); err != nil || string(text) != "a secret of the cluster" {
		t.Errorf("the secret is %q, %v", text, err)
	}
	if out, code := restore("word"); code != exitRefused || !strings.Contains(out, "--force") {
		t.Errorf("restore over it = %d, %q", code, out)
	}
}
