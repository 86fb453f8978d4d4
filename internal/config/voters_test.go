package config

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVotersAreReplacedAndNothingElse(t *testing.T) {
	from, to := netip.MustParseAddrPort("10.0.0.2:7946"), netip.MustParseAddrPort("10.0.0.3:8000")
	for _, c := range []struct{ name, text, want string }{
		{"dotted", "cluster.join = [\"10.0.0.1\", \"10.0.0.2\"] # the pair\nlog.level = \"info\"\n", "cluster.join = [\"10.0.0.1\", \"10.0.0.3:8000\"] # the pair\nlog.level = \"info\"\n"},
		{"table over lines", "# all\n[cluster]\njoin = [\n  \"10.0.0.1\",\n  \"10.0.0.2\",\n]\nname = \"x\"\n", "# all\n[cluster]\njoin = [\"10.0.0.1\", \"10.0.0.3:8000\"]\nname = \"x\"\n"},
	} {
		got, err := ReplaceVoter([]byte(c.text), from, to)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, string(got)); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	if _, err := ReplaceVoter([]byte("cluster.join = [\"10.0.0.1\"]\n"), from, to); !errors.Is(err, ErrNoVoter) {
		t.Errorf("ReplaceVoter = %v, want ErrNoVoter", err)
	}
	if _, err := ReplaceVoter([]byte("cluster = { join = [\"10.0.0.2\"] }\n"), from, to); err == nil {
		t.Error("a join in an inline table was replaced")
	}
}

func TestRehomeGivesTheTextAnotherNode(t *testing.T) {
	text := "cluster.join = [\"10.0.0.1\", \"10.0.0.2\"]\ncluster.bind = \"10.0.0.1\"\n\n[node]\nname = \"edge-1\"\nzone = \"a\"\n\n# what it does\n[[route]]\nto = \"10.0.1.1:80\"\n"
	got, err := Rehome([]byte(text), "edge-3", "/srv/state", "10.0.0.3:7946")
	if err != nil {
		t.Fatal(err)
	}
	want := "cluster.bind = \"10.0.0.3:7946\"\ncluster.join = [\"10.0.0.1\", \"10.0.0.2\"]\n\n# what it does\n[[route]]\nto = \"10.0.1.1:80\"\n\n[node]\nname = \"edge-3\"\nstate = \"/srv/state\"\nzone = \"a\"\n"
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	if same, err := Rehome([]byte(text), "", "", ""); err != nil || string(same) != text {
		t.Errorf("Rehome of nothing = %q, %v", same, err)
	}
}
