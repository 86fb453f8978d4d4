package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parsed(t testing.TB, text string) *Config {
	t.Helper()
	c, err := testHost().Parse("proxyd.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const changesBase = `
[cluster]
join   = ["10.0.0.11", "10.0.0.12"]
secret = "env:KEY"
bind   = "10.0.0.11"
[vip.public]
address   = "203.0.113.10/24"
interface = "eth0"
[pool.api]
servers = ["10.0.1.5:80", "10.0.1.6:80"]
check   = { path = "/a" }
[[route]]
host = "example.com"
pool = "api"
[[route]]
host = "old.example.com"
to   = ["10.0.1.7:80"]
`

func TestChangesNamesKeys(t *testing.T) {
	next := strings.NewReplacer(
		`path = "/a"`, `path = "/b"`,
		`"10.0.1.6:80"`, `"10.0.1.8:80"`,
		"old.example.com", "new.example.com",
		`bind   = "10.0.0.11"`, `bind   = "10.0.0.12"`,
		`[vip.public]`, "[vip.other]",
	).Replace(changesBase)
	want := []string{
		"vip.public: removed",
		"pool.api.server.10.0.1.6:80: removed",
		"route.old.example.com: removed",
		`cluster.bind: "10.0.0.11:7946" -> "10.0.0.12:7946"`,
		"vip.other: added",
		"pool.api.server.10.0.1.8:80: added",
		"pool.api.server: [10.0.1.5:80, 10.0.1.6:80] -> [10.0.1.5:80, 10.0.1.8:80]",
		`pool.api.check.path: "/a" -> "/b"`,
		"route.new.example.com: added",
	}
	if diff := cmp.Diff(want, Changes(parsed(t, changesBase), parsed(t, next))); diff != "" {
		t.Errorf("Changes (-want +got):\n%s", diff)
	}
}

func TestChangesIsEmptyForTheSameSettings(t *testing.T) {
	a := parsed(t, changesBase)
	b := parsed(t, "# moved\n"+a.Effective())
	if got := Changes(a, b); len(got) > 0 {
		t.Errorf("Changes = %q, want none", got)
	}
	if a.Hash != b.Hash {
		t.Errorf("hashes %s and %s differ", a.Hash, b.Hash)
	}
}

func TestHashIsOfWhatAllNodesShare(t *testing.T) {
	base := parsed(t, changesBase).Hash
	if len(base) != 12 {
		t.Errorf("Hash = %q, want 12 digits", base)
	}
	for name, c := range map[string]struct {
		old, new string
		same     bool
	}{
		"bind":    {`bind   = "10.0.0.11"`, `bind   = "10.0.0.12"`, true},
		"secret":  {`"env:KEY"`, `"file:/etc/proxyd/cluster.key"`, true},
		"node":    {"[cluster]", "node.name = \"other\"\n[cluster]", true},
		"admin":   {"[cluster]", "admin.listen = \"\"\n[cluster]", true},
		"log":     {"[cluster]", "log.level = \"debug\"\n[cluster]", true},
		"fence":   {"[cluster]", "cluster.fence = \"nftables\"\n[cluster]", true},
		"comment": {"[cluster]", "# x\n[cluster]", true},
		"join":    {`"10.0.0.12"]`, `"10.0.0.13"]`, false},
		"vip":     {"203.0.113.10", "203.0.113.11", false},
		"pool":    {"10.0.1.6", "10.0.1.9", false},
		"to":      {"10.0.1.7", "10.0.1.9", false},
		"route":   {`host = "example.com"`, `host = "example.org"`, false},
		"limits":  {"[cluster]", "limits.conns = 7\n[cluster]", false},
	} {
		if got := parsed(t, strings.Replace(changesBase, c.old, c.new, 1)).Hash; (got == base) != c.same {
			t.Errorf("%s: hash %s, was %s; want them the same: %t", name, got, base, c.same)
		}
	}
}

func TestFixedKeepsWhatCannotChange(t *testing.T) {
	old := parsed(t, "node.name = \"a\"\n"+changesBase)
	next := parsed(t, `
node  = { name = "b", state = "/srv" }
admin = { socket = "/run/b.sock", listen = "" }
limits.conns = 7
`+strings.Replace(strings.Replace(changesBase, "[cluster]", "[cluster]\nname = \"c\"", 1), `bind   = "10.0.0.11"`, "", 1))
	c, warnings := Fixed(old, next)
	if c.Node.Name != "a" || c.Node.State != old.Node.State || c.Cluster.Name != old.Cluster.Name ||
		c.Cluster.Bind != old.Cluster.Bind || c.Admin.Socket != old.Admin.Socket {
		t.Errorf("Fixed changed a fixed key: %+v", c)
	}
	if c.Limits.Conns != 7 || c.Admin.Listen != "" {
		t.Errorf("Fixed kept what can change: %+v", c)
	}
	if next.Node.Name != "b" {
		t.Error("Fixed changed its argument")
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.String())
	}
	want := []string{
		`proxyd.toml: warning: node.name cannot change while proxyd runs; it stays "a" until a restart`,
		`proxyd.toml: warning: node.state cannot change while proxyd runs; it stays "/var/lib/proxyd" until a restart`,
		`proxyd.toml: warning: cluster.name cannot change while proxyd runs; it stays "proxyd" until a restart`,
		`proxyd.toml: warning: cluster.bind cannot change while proxyd runs; it stays "10.0.0.11:7946" until a restart`,
		`proxyd.toml: warning: admin.socket cannot change while proxyd runs; it stays "/run/proxyd/admin.sock" until a restart`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if _, none := Fixed(old, old); len(none) > 0 {
		t.Errorf("Fixed(old, old) warns: %v", none)
	}
}
