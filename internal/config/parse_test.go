package config

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the golden files and docs/CONFIG.md anew")

// same compares what two files say, not where they say it.
var same = cmp.Options{
	cmp.Comparer(func(a, b Secret) bool { return a == b }),
	cmpopts.EquateComparable(netip.Prefix{}, netip.AddrPort{}),
	cmpopts.IgnoreFields(Config{}, "Name", "Warnings"),
	cmpopts.IgnoreFields(Route{}, "File", "Line"),
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return names
}

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is stale (-file +now); run the test with -update:\n%s", name, diff)
	}
}

func TestBadFilesSayWhatIsWrong(t *testing.T) {
	for _, name := range glob(t, "testdata/bad/*.toml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, err := testHost().Parse("proxyd.toml", mustRead(name))
			if err == nil {
				t.Fatalf("Parse found nothing wrong:\n%s", c.Effective())
			}
			golden(t, strings.TrimSuffix(name, ".toml")+".want", err.Error()+"\n")
		})
	}
}

func TestGoodFilesSurviveTheRoundTrip(t *testing.T) {
	for _, name := range glob(t, "testdata/good/*.toml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, err := testHost().Parse("proxyd.toml", mustRead(name))
			if err != nil {
				t.Fatal(err)
			}
			again, err := testHost().Parse("effective.toml", []byte(c.Effective()))
			if err != nil {
				t.Fatalf("Parse(Effective()) = %v\n%s", err, c.Effective())
			}
			if diff := cmp.Diff(c, again, same); diff != "" {
				t.Errorf("Parse(Effective()) differs (-was +is):\n%s\n%s", diff, c.Effective())
			}
		})
	}
}

func TestMinimalShowsEveryDefault(t *testing.T) {
	c, err := testHost().Parse("proxyd.toml", mustRead("testdata/minimal.toml"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/minimal.golden", c.Effective())
}

func TestWarningsNameWhatIsHardlyMeant(t *testing.T) {
	for _, name := range glob(t, "testdata/warn/*.toml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, err := testHost().Parse("proxyd.toml", mustRead(name))
			if err != nil {
				t.Fatal(err)
			}
			var lines strings.Builder
			for _, w := range c.Warnings {
				lines.WriteString(w.String() + "\n")
			}
			golden(t, strings.TrimSuffix(name, ".toml")+".want", lines.String())
		})
	}
}
