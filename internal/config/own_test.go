package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

func TestSpliceKeepsWhatIsTheNodesOwn(t *testing.T) {
	for _, c := range []struct{ name, theirs, mine, want string }{
		{"nothing of its own", "[log]\nlevel = \"info\"\n", "cluster.name = \"x\"\n", "[log]\nlevel = \"info\"\n"},
		{"a table with comments",
			"# shared\ncluster.name = \"new\"\n\n[log]\nlevel = \"info\"\n",
			"cluster.name = \"old\"\n\n# this host\n[node]\nname = \"edge-2\" # the second\n\n[log]\nlevel = \"warn\"\n",
			"# shared\ncluster.name = \"new\"\n\n[log]\nlevel = \"info\"\n\n# this host\n[node]\nname = \"edge-2\" # the second\n"},
		{"theirs is left out",
			"[node]\nname = \"edge-1\"\n\n# log\n[log]\nlevel = \"info\"\n",
			"[admin]\nsocket = \"/run/x\"\n",
			"# log\n[log]\nlevel = \"info\"\n\n[admin]\nsocket = \"/run/x\"\n"},
		{"dotted keys",
			"node.name = \"edge-1\"\ncluster.bind = \"10.0.0.1:1\"\ncluster.name = \"new\"\n",
			"node.name = \"edge-2\"\nnode.state = \"/s\"\ncluster.bind = \"10.0.0.2:1\"\n",
			"node.name = \"edge-2\"\nnode.state = \"/s\"\ncluster.bind = \"10.0.0.2:1\"\ncluster.name = \"new\"\n"},
		{"bind from dotted into a table",
			"[cluster]\njoin = [\n  \"10.0.0.1:1\", # one\n  \"10.0.0.2:1\",\n]\nbind = \"10.0.0.1:1\"\n",
			"cluster.bind = \"10.0.0.2:1\"\n",
			"[cluster]\nbind = \"10.0.0.2:1\"\njoin = [\n  \"10.0.0.1:1\", # one\n  \"10.0.0.2:1\",\n]\n"},
		{"bind from a table into dotted",
			"cluster.join = [\"10.0.0.1:1\"]\n",
			"[cluster]\nbind = \"10.0.0.2:1\"\n",
			"cluster.bind = \"10.0.0.2:1\"\ncluster.join = [\"10.0.0.1:1\"]\n"},
		{"a text that looks like a header",
			"[[route]]\nrespond = { status = 200, body = '''\n[node]\n''' }\n",
			"[node]\nname = \"b\"\n",
			"[[route]]\nrespond = { status = 200, body = '''\n[node]\n''' }\n\n[node]\nname = \"b\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Splice([]byte(c.theirs), []byte(c.mine))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, string(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSpliceRefusesWhatItCannotPart(t *testing.T) {
	if _, err := Splice([]byte("cluster = { bind = \"10.0.0.1:1\", name = \"x\" }\n"), []byte("cluster.bind = \"10.0.0.2:1\"\n")); !errors.Is(err, ErrOwn) {
		t.Errorf("Splice = %v, want ErrOwn", err)
	}
}

func FuzzSplice(f *testing.F) {
	f.Add("node.name = \"a\"\n[log]\nlevel = \"info\"\n", "[node]\nname = \"b\"\n[cluster]\nbind = \"1.2.3.4:5\"\n")
	f.Fuzz(func(t *testing.T, theirs, mine string) {
		out, err := Splice([]byte(theirs), []byte(mine))
		if err != nil {
			return
		}
		var tree map[string]any
		if _, err := toml.Decode(string(out), &tree); err != nil {
			t.Errorf("%q with %q gives %q: %v", theirs, mine, out, err)
		}
	})
}

func TestTextOfAClusterIsReadWithTheNodesOwn(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "proxyd.toml")
	if err := os.WriteFile(file, []byte("node.name = \"edge-2\"\nnode.state = \""+dir+"\"\nadmin.listen = \"\"\n[[route]]\nrespond = { status = 404 }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "include = [\"conf.d/*.toml\"]\n[node]\nname = \"edge-1\"\n"
	included := map[string][]byte{"/else/where/conf.d/a.toml": []byte("[[route]]\nrespond = { status = 200 }\n"), "/else/where/other.toml": []byte("nonsense")}
	c, err := Load(Texts{Main: "/else/where/new.toml", Text: []byte(text), Included: included, Own: file})
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "edge-2" || c.Node.State != dir || c.Admin.Listen != "" || len(c.Route) != 1 || c.Route[0].Respond.Status != 200 {
		t.Errorf("node %+v, admin %+v, routes %+v", c.Node, c.Admin, c.Route)
	}
	// What is wrong has the place where it stands, in either text.
	included["/else/where/conf.d/a.toml"] = []byte("[[route]]\nrespond = { status = 2000 }\n")
	_, err = Load(Texts{Main: "/else/where/new.toml", Text: []byte(text), Included: included, Own: file})
	if err == nil || !strings.Contains(err.Error(), "/else/where/conf.d/a.toml:2:") {
		t.Errorf("Load = %v, want the place in the included text", err)
	}
	if got := StateDir(file); got != dir {
		t.Errorf("StateDir = %q, want %q", got, dir)
	}
}

func TestStateDirIsFoundInWhatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proxyd.toml")
	for text, want := range map[string]string{
		"[node]\nname = \"a\"\nstate = \"/a\" # here\n":   "/a",
		"node.state = '/a'\n[[route]]\nbroken = \n":       "/a",
		"node = { name = \"a\", state = \"/a\" }\n":       "/a",
		"[[route]]\nstate = \"/b\"\n[node]\nstate=\"/a\"": "/a",
		"[node]\nstate = 5\n":                             "/var/lib/proxyd",
		"[node]\nname = \"[node] state = '/b'\"":          "/var/lib/proxyd",
		"":                                                "/var/lib/proxyd",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := StateDir(file); got != want {
			t.Errorf("StateDir of %q = %q, want %q", text, got, want)
		}
	}
}
