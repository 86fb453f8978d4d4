package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"proxyd/internal/control"
)

func (f *fake) Edit(_ context.Context, e control.Edit) (*control.Reload, error) {
	text, err := json.Marshal(e)
	f.asked = string(text)
	if err == nil {
		err = f.err
	}
	return &control.Reload{Changed: true, Changes: []string{"pool.new: added"}}, err
}

func (f *fake) Changes(context.Context) (string, error) { return "[remove]\nroute = [\"old\"]\n", nil }

func TestEditsAreAskedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new.toml")
	if err := os.WriteFile(file, []byte("[pool.new]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line  string
		asked string
		code  int
		says  string
	}{
		{"put " + file, `{"put":{"name":"` + file + `","text":"[pool.new]\n"}}`, 0, "pool.new: added"},
		{"add server web 10.0.0.3:80 --weight 5 --backup", `{"add":{"pool":"web","addr":"10.0.0.3:80","weight":5,"backup":true}}`, 0, ""},
		{"rm server web 10.0.0.3:80", `{"remove":{"kind":"server","name":"web/10.0.0.3:80"}}`, 0, ""},
		{"rm server web/10.0.0.3:80 --dry-run", `{"remove":{"kind":"server","name":"web/10.0.0.3:80"},"dry_run":true}`, 0, ""},
		{"rm route example.com/api", `{"remove":{"kind":"route","name":"example.com/api"}}`, 0, ""},
		{"changes drop pool new", `{"drop":{"kind":"pool","name":"new"}}`, 0, ""},
		{"changes clear", `{"clear":true}`, 0, ""},
		{"changes", "", 0, `route = ["old"]`},
		{"config --changes", "", 0, `route = ["old"]`},
		{"config", "", exitUsage, "--effective or --changes"},
		{"put", "", exitUsage, "usage"},
		{"put " + file + ".none", "", exitConfig, "no such file"},
		{"add server web", "", exitUsage, "usage"},
		{"rm vip public", "", exitUsage, "vip"},
		{"__complete rm server ", "", 0, "web"},
		{"__complete rm server web ", "", 0, "10.0.0.1:80"},
		{"__complete rm route ", "", 0, "example.com/api"},
	} {
		f := &fake{}
		args := strings.Fields(c.line)
		if strings.HasSuffix(c.line, " ") {
			args = append(args, "")
		}
		out, code := hactl(t, f, args...)
		if f.asked != c.asked || code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("hactl %s = code %d, asked %s, said %q; want code %d, %s and %q", c.line, code, f.asked, out, c.code, c.asked, c.says)
		}
	}
}

func TestBadEditsGiveTheirExitCodes(t *testing.T) {
	for err, code := range map[error]int{
		control.Invalid("stdin:3:1: no"):                   exitConfig,
		control.Refuse(`pool "x": there is no such thing`): exitRefused,
	} {
		if out, got := hactl(t, &fake{err: err}, "rm", "pool", "x"); got != code || !strings.Contains(out, err.Error()) {
			t.Errorf("rm answered by %v = code %d, %q; want code %d", err, got, out, code)
		}
	}
}
