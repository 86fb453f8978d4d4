package config

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// disk is testHost with files of its own.
func disk(files map[string]string) Host {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name[1:]] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	h := testHost()
	h.Stat = func(s string) (fs.FileInfo, error) { return m.Stat(s[1:]) }
	h.ReadFile = func(s string) ([]byte, error) { return m.ReadFile(s[1:]) }
	h.Glob = func(s string) ([]string, error) {
		names, err := fs.Glob(m, s[1:])
		for i := range names {
			names[i] = "/" + names[i]
		}
		return names, err
	}
	return h
}

const mainFile = "/etc/proxyd/proxyd.toml"

func loaded(t *testing.T, files map[string]string) *Config {
	t.Helper()
	c, err := disk(files).Load(Texts{Main: mainFile})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// summary says which pools with their servers, routes and listeners there are.
func summary(c *Config) string {
	var words []string
	for _, name := range sortedKeys(c.Listener) {
		words = append(words, name+"="+strings.Join(c.Listener[name].Address, ","))
	}
	for _, name := range sortedKeys(c.Pool) {
		var servers []string
		for _, s := range c.Pool[name].Server {
			servers = append(servers, fmt.Sprintf("%s*%d", s.Addr, s.Weight))
		}
		words = append(words, name+":"+strings.Join(servers, ","))
	}
	for _, r := range c.Route {
		words = append(words, r.Name+">"+r.Pool)
	}
	return strings.Join(words, " ")
}

func TestIncludedFilesAreOneConfiguration(t *testing.T) {
	files := map[string]string{
		mainFile:                       "include = [\"conf.d/*.toml\", \"/srv/extra.toml\"]\nlimits.body = \"1MiB\"\n[[route]]\nname = \"site\"\npool = \"web\"\n",
		"/etc/proxyd/conf.d/10-a.toml": "[pool.web]\nservers = [\"10.0.0.1:80\"]\n[[route]]\nhost = \"a.example\"\npool = \"web\"\n",
		"/etc/proxyd/conf.d/20-b.toml": "[pool.api]\nservers = [\"10.0.0.2:80\"]\n[limits]\nconns = 10\n",
		"/etc/proxyd/conf.d/README":    "not toml",
		"/srv/extra.toml":              "[[route]]\nhost = \"b.example\"\npool = \"api\"\n",
	}
	c := loaded(t, files)
	if got, want := summary(c), "http=:80 api:10.0.0.2:80*1 web:10.0.0.1:80*1 a.example>web b.example>api site>web"; got != want {
		t.Errorf("joined: %s\nwant:   %s", got, want)
	}
	var places []string
	for _, r := range c.Route {
		places = append(places, fmt.Sprintf("%s:%d", r.File, r.Line))
	}
	if want := []string{"/etc/proxyd/conf.d/10-a.toml:3", "/srv/extra.toml:1", mainFile + ":3"}; !slices.Equal(places, want) {
		t.Errorf("the routes are at %v, want %v", places, want)
	}
	if c.Limits.Body != 1<<20 || c.Limits.Conns != 10 {
		t.Errorf("limits of two files are %+v", c.Limits)
	}
	names, patterns := disk(files).files(Texts{Main: mainFile})
	if want := []string{mainFile, "/etc/proxyd/conf.d/10-a.toml", "/etc/proxyd/conf.d/20-b.toml", "/srv/extra.toml"}; !slices.Equal(names, want) || len(patterns) != 2 {
		t.Errorf("Files = %v, %v; want %v and both patterns", names, patterns, want)
	}
	again, err := testHost().Parse("effective.toml", []byte(c.Effective()))
	if err != nil || summary(again) != summary(c) {
		t.Errorf("the effective form reads as %v, %v", again, err)
	}
}

func TestProblemsNameTheFileTheyAreIn(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"a thing given twice", map[string]string{
			mainFile:             "include = \"a.toml\"\n[[route]]\npool = \"web\"\n[pool.web]\nservers = [\"10.0.0.2:80\"]\n",
			"/etc/proxyd/a.toml": "# pools\n[pool.web]\nservers = [\"10.0.0.1:80\"]\n",
		}, mainFile + ":4:7: [pool.web] is given at /etc/proxyd/a.toml:2:7 too; one of the two must go"},
		{"a key given twice", map[string]string{
			mainFile:             "include = \"a.toml\"\nlimits.conns = 5\n[[route]]\nto = \"10.0.0.1:80\"\n",
			"/etc/proxyd/a.toml": "[limits]\nconns = 6\n",
		}, mainFile + ":2:8: limits.conns is given at /etc/proxyd/a.toml:2:1 too; one of the two must go"},
		{"a route given twice", map[string]string{
			mainFile:             "include = \"a.toml\"\n[[route]]\nhost = \"h\"\nto = \"10.0.0.1:80\"\n",
			"/etc/proxyd/a.toml": "\n[[route]]\nhost = \"h\"\nto = \"10.0.0.2:80\"\n",
		}, mainFile + `:2:1: [[route]] "h": lines /etc/proxyd/a.toml:2 and 2 match the same requests ("h" and "h#2"): change one, or give one a priority`},
		{"bad values in two files", map[string]string{
			mainFile:             "include = \"a.toml\"\n[[route]]\nto = \"10.0.0.1\"\n",
			"/etc/proxyd/a.toml": "[[route]]\nhost = \"h\"\nto = \"10.0.0.2:80\"\npriority = \"high\"\n",
		}, mainFile + `:3:6: [[route]]: to needs a port, such as "10.0.1.5:8080" or "[2001:db8::5]:8080", not "10.0.0.1"
/etc/proxyd/a.toml:4:12: [[route]] "h": priority needs a whole number without quotes, not the text "high"`},
		{"syntax", map[string]string{
			mainFile:             "include = \"a.toml\"\n[[route]]\nto = \"10.0.0.1:80\"\n",
			"/etc/proxyd/a.toml": "[pool.web\n",
		}, "/etc/proxyd/a.toml:2:1: expected"},
		{"a file that is not there", map[string]string{
			mainFile: "include = [\"conf.d/*.toml\",\n  \"a.toml\"]\n[[route]]\nto = \"10.0.0.1:80\"\n",
		}, mainFile + ":2:3: include: file /etc/proxyd/a.toml does not exist"},
		{"not a list", map[string]string{
			mainFile: "include = 5\n[[route]]\nto = \"10.0.0.1:80\"\n",
		}, mainFile + `:1:11: include needs a list of file names, such as ["conf.d/*.toml"], not the number 5`},
		{"an include that includes", map[string]string{
			mainFile:             "include = \"a.toml\"\n[[route]]\nto = \"10.0.0.1:80\"\n",
			"/etc/proxyd/a.toml": "include = \"b.toml\"\n",
		}, "/etc/proxyd/a.toml:1:1: include stands in " + mainFile + " alone, not in a file that is included"},
		{"below a header", map[string]string{
			mainFile: "[node]\ninclude = \"a.toml\"\n[[route]]\nto = \"10.0.0.1:80\"\n",
		}, mainFile + `:2:1: "include" is inside [node] because it follows that header; it stands above the first header`},
	} {
		_, err := disk(c.files).Load(Texts{Main: mainFile})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n%v\nwant\n%s", c.name, err, c.want)
		}
	}
}

const changesFile = "/var/lib/proxyd/" + ChangesFile

// base is a file of two pools.
const twoPools = `[listener.web]
address = ":8080"
[pool.web]
servers = ["10.0.0.1:80", "10.0.0.2:80"]
[pool.api]
server = [{ addr = "10.0.1.1:80", weight = 3 }, { addr = "10.0.1.2:80" }]
[[route]]
host = "example.com"
pool = "web"
[[route]]
name = "api"
host = "api.example.com"
pool = "api"
`

// An edited is a configuration that is changed at run time, again and again.
type edited struct {
	t     *testing.T
	files map[string]string
}

func (e *edited) do(edit Edit) error {
	text, _, err := disk(e.files).Edit(Texts{Main: mainFile}, edit)
	if err == nil {
		e.files[changesFile] = string(text)
	}
	return err
}

func (e *edited) must(edit Edit) string {
	e.t.Helper()
	if err := e.do(edit); err != nil {
		e.t.Fatal(err)
	}
	return summary(loaded(e.t, e.files))
}

func put(text string) Edit { return Edit{Put: &Snippet{"stdin", text}} }

func TestChangesAtRunTimeAreLaidOver(t *testing.T) {
	e := &edited{t, map[string]string{mainFile: twoPools}}
	before := summary(loaded(t, e.files))
	for _, step := range []struct {
		name string
		edit Edit
		want string
	}{
		{"add a server", Edit{Add: &NewServer{Pool: "web", Addr: "10.0.0.3:80", Weight: 5}},
			"web=:8080 api:10.0.1.1:80*3,10.0.1.2:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1,10.0.0.3:80*5 example.com>web api>api"},
		{"remove one of the file", Edit{Remove: &Thing{"server", "web/10.0.0.1:80"}},
			"web=:8080 api:10.0.1.1:80*3,10.0.1.2:80*1 web:10.0.0.2:80*1,10.0.0.3:80*5 example.com>web api>api"},
		{"remove one of the long form", Edit{Remove: &Thing{"server", "api/10.0.1.1:80"}},
			"web=:8080 api:10.0.1.2:80*1 web:10.0.0.2:80*1,10.0.0.3:80*5 example.com>web api>api"},
		{"remove the one that was added", Edit{Remove: &Thing{"server", "web/10.0.0.3:80"}},
			"web=:8080 api:10.0.1.2:80*1 web:10.0.0.2:80*1 example.com>web api>api"},
		{"add back what the file has", Edit{Add: &NewServer{Pool: "web", Addr: "10.0.0.1:80"}},
			"web=:8080 api:10.0.1.2:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1 example.com>web api>api"},
		{"put new things", put("[pool.new]\nservers = [\"10.0.2.1:80\"]\n[[route]]\nname = \"new\"\nhost = \"new.example.com\"\npool = \"new\"\nlistener = \"alt\"\n[listener.alt]\naddress = [\":8081\", \":8082\"]\n"),
			"alt=:8081,:8082 web=:8080 api:10.0.1.2:80*1 new:10.0.2.1:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1 example.com>web api>api new>new"},
		{"put over what was put", put("[pool.new]\nservers = [\"10.0.2.2:80\"]\n"),
			"alt=:8081,:8082 web=:8080 api:10.0.1.2:80*1 new:10.0.2.2:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1 example.com>web api>api new>new"},
		{"put over what the file has", put("[pool.api]\nserver = [{ addr = \"10.0.1.9:80\", weight = 2 }]\n[[route]]\nname = \"example.com\"\nhost = \"www.example.com\"\npool = \"web\"\n"),
			"alt=:8081,:8082 web=:8080 api:10.0.1.9:80*2 new:10.0.2.2:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1 api>api new>new example.com>web"},
		{"add to what was put over the file", Edit{Add: &NewServer{Pool: "api", Addr: "10.0.1.1:80"}},
			"alt=:8081,:8082 web=:8080 api:10.0.1.9:80*2,10.0.1.1:80*1 new:10.0.2.2:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1 api>api new>new example.com>web"},
		{"remove a route of the file", Edit{Remove: &Thing{"route", "api"}},
			"alt=:8081,:8082 web=:8080 api:10.0.1.9:80*2,10.0.1.1:80*1 new:10.0.2.2:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1 new>new example.com>web"},
		{"remove a pool of the file that was put", Edit{Remove: &Thing{"pool", "api"}},
			"alt=:8081,:8082 web=:8080 new:10.0.2.2:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1 new>new example.com>web"},
		{"drop one of these", Edit{Drop: &Thing{"route", "example.com"}},
			"alt=:8081,:8082 web=:8080 new:10.0.2.2:80*1 web:10.0.0.1:80*1,10.0.0.2:80*1 example.com>web new>new"},
		{"clear", Edit{Clear: true}, before},
	} {
		if got := e.must(step.edit); got != step.want {
			t.Fatalf("%s:\n got %s\nwant %s\n%s", step.name, got, step.want, e.files[changesFile])
		}
	}
}

func TestServersGoByTheAddressThatIsShown(t *testing.T) {
	e := &edited{t, map[string]string{mainFile: "[pool.web]\nservers = [\"App:80\", \"[2001:DB8::1]:80\"]\n[[route]]\npool = \"web\"\n"}}
	const whole = "http=:80 web:app:80*1,[2001:db8::1]:80*1 *>web"
	for _, step := range []struct {
		name string
		edit Edit
		want string
	}{
		{"remove as it is shown", Edit{Remove: &Thing{"server", "web/app:80"}}, "http=:80 web:[2001:db8::1]:80*1 *>web"},
		{"add as the file has it", Edit{Add: &NewServer{Pool: "web", Addr: "App:80"}}, whole},
		{"remove as the file has it", Edit{Remove: &Thing{"server", "web/[2001:DB8::1]:80"}}, "http=:80 web:app:80*1 *>web"},
		{"drop as it is shown", Edit{Drop: &Thing{"server", "web/[2001:db8::1]:80"}}, whole},
	} {
		if got := e.must(step.edit); got != step.want {
			t.Errorf("%s: %s\nwant: %s", step.name, got, step.want)
		}
	}
	if err := e.do(Edit{Add: &NewServer{Pool: "web", Addr: "APP:80"}}); err == nil {
		t.Error("a server that is there in another case was added")
	}
}

func TestBadChangesAreRefusedWhole(t *testing.T) {
	for _, c := range []struct {
		name string
		edit Edit
		want string
	}{
		{"a pool that is used", Edit{Remove: &Thing{"pool", "web"}}, mainFile + `:9:8: [[route]] "example.com": pool "web" is not defined`},
		{"a snippet with a bad value", put("[pool.new]\nservers = [\"10.0.2.1:80\"]\nbalance = \"best\"\n"), `stdin:3:11: pool "new": balance "best"`},
		{"a snippet that is no TOML", put("[pool.new"), "stdin:1:"},
		{"an empty snippet", put("\n"), "stdin:1:1: there is nothing in it"},
		{"a section that cannot", put("[cluster]\nname = \"x\"\n"), "stdin:1:2: cluster cannot be changed at run time"},
		{"a route without a name", put("[[route]]\nhost = \"x\"\npool = \"web\"\n"), "stdin:1:1: a route that is put needs a name"},
		{"a tie", put("[[route]]\nname = \"x\"\nhost = \"example.com\"\npool = \"web\"\n"), `stdin:1:1: [[route]] "x": lines ` + mainFile + `:7 and 1 match the same requests`},
		{"a server that is there", Edit{Add: &NewServer{Pool: "web", Addr: "10.0.0.1:80"}}, "has the server 10.0.0.1:80 already"},
		{"a server that is none", Edit{Add: &NewServer{Pool: "web", Addr: "10.0.0.9"}}, "10.0.0.9"},
		{"a pool that is not there", Edit{Add: &NewServer{Pool: "none", Addr: "10.0.0.1:80"}}, "no such thing"},
		{"a server that is not there", Edit{Remove: &Thing{"server", "web/10.9.9.9:80"}}, "no such thing"},
		{"the last listener", Edit{Remove: &Thing{"listener", "web"}}, "is the last one"},
		{"a kind that cannot", Edit{Remove: &Thing{"vip", "public"}}, "cannot be removed at run time"},
		{"nothing to drop", Edit{Drop: &Thing{"pool", "web"}}, "no such thing"},
		{"nothing", Edit{}, "nothing to change"},
	} {
		e := &edited{t, map[string]string{mainFile: twoPools}}
		if err := e.do(c.edit); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestCollisionOfFileAndChangesSaysTheCure(t *testing.T) {
	e := &edited{t, map[string]string{mainFile: twoPools}}
	e.must(put("[pool.new]\nservers = [\"10.0.2.1:80\"]\n[[route]]\nname = \"new\"\nhost = \"new.example.com\"\npool = \"new\"\n"))
	e.files[mainFile] += "[pool.new]\nservers = [\"10.0.3.1:80\"]\nbalance = \"least_conn\"\n[[route]]\nname = \"new\"\npath = \"/new\"\npool = \"new\"\n"
	// The pool of the changes has servers alone: they are added. The routes collide.
	_, err := disk(e.files).Load(Texts{Main: mainFile})
	if err == nil || !strings.Contains(err.Error(), `route "new" was added at run time, and `+mainFile+":17:1 has it too") ||
		!strings.Contains(err.Error(), changesFile+":") || !strings.Contains(err.Error(), "`hactl changes drop route new`") {
		t.Errorf("a collision is told as %v", err)
	}
	if got := e.must(Edit{Drop: &Thing{"route", "new"}}); !strings.Contains(got, "new:10.0.3.1:80*1,10.0.2.1:80*1") {
		t.Errorf("after the cure: %s", got)
	}
	e.must(put("[pool.more]\nservers = [\"10.0.4.1:80\"]\nbalance = \"least_conn\"\n"))
	e.files[mainFile] += "[pool.more]\nservers = [\"10.0.4.2:80\"]\n"
	if _, err := disk(e.files).Load(Texts{Main: mainFile}); err == nil || !strings.Contains(err.Error(), `pool "more" was added at run time`) {
		t.Errorf("a pool that both define is told as %v", err)
	}
}

func TestWhatWasRemovedAndIsGoneIsAWarning(t *testing.T) {
	e := &edited{t, map[string]string{mainFile: twoPools}}
	e.must(Edit{Remove: &Thing{"server", "web/10.0.0.2:80"}})
	e.files[mainFile] = strings.Replace(twoPools, `, "10.0.0.2:80"`, "", 1)
	c := loaded(t, e.files)
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].String(), "`hactl changes drop server web/10.0.0.2:80` forgets that") {
		t.Errorf("warnings = %v", c.Warnings)
	}
}

func TestMadeRouteNamesAreTheSameBeforeAndAfterDecoding(t *testing.T) {
	text := twoPools + "[[route]]\nhost = [\"example.com\", \"b\"]\npath = \"/a/*\"\npool = \"web\"\n[[route]]\npath = \"/*\"\nhost = \"c\"\npool = \"web\"\n[[route]]\nhost = \"c\"\npath=\"/*\"\npriority = 5\npool = \"web\"\n[[route]]\npool = \"web\"\n"
	j, err := disk(map[string]string{mainFile: text}).joinBase(Texts{Main: mainFile})
	if err != nil {
		t.Fatal(err)
	}
	routes, _ := elements(j.tree["route"])
	names := routeNames(routes)
	c, err := j.config()
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range c.Route {
		if r.Name != names[i] {
			t.Errorf("route %d is %q decoded and %q before", i, r.Name, names[i])
		}
	}
}

func TestUnreadableChangesAreLeftOutWhenAsked(t *testing.T) {
	h := disk(map[string]string{mainFile: twoPools})
	stat, read := h.Stat, h.ReadFile
	denied := func(name string) error { return &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission} }
	h.Stat = func(name string) (fs.FileInfo, error) {
		if filepath.Base(name) == ChangesFile {
			return nil, denied(name)
		}
		return stat(name)
	}
	h.ReadFile = func(name string) ([]byte, error) {
		if filepath.Base(name) == ChangesFile {
			return nil, denied(name)
		}
		return read(name)
	}
	if _, err := h.Load(Texts{Main: mainFile}); err == nil {
		t.Error("Load leaves out what it may not read")
	}
	c, err := h.Load(Texts{Main: mainFile, Partial: true})
	if err != nil || len(c.Warnings) != 1 {
		t.Errorf("Load of what may be read = %v, warnings of %v", err, c)
	}
}

// FuzzEdit: no snippet makes an edit panic; one that is taken can be taken back.
func FuzzEdit(f *testing.F) {
	f.Add("[pool.new]\nservers = [\"10.0.2.1:80\"]\n")
	f.Add("[pool.web]\nserver = [{ addr = \"10.0.2.1:80\" }]\n[[route]]\nname = \"example.com\"\npool = \"web\"\n")
	f.Add("[remove]\npool = [\"web\"]\n")
	f.Add("route = 5\npool = []\n")
	f.Fuzz(func(t *testing.T, text string) {
		e := &edited{t, map[string]string{mainFile: twoPools}}
		before := summary(loaded(t, e.files))
		if e.do(put(text)) != nil {
			return
		}
		if got := e.must(Edit{Clear: true}); got != before {
			t.Errorf("after clear: %s\nbefore: %s", got, before)
		}
		// As a file of changes it may be anything, too.
		e.files[changesFile] = text
		_, _ = disk(e.files).Load(Texts{Main: mainFile})
	})
}

// Each route knows where it stands, whichever text it is from.
func TestRoutesSayWhereTheyStand(t *testing.T) {
	c := loaded(t, map[string]string{
		mainFile:                         "include = \"conf.d/*.toml\"\nnode.state = \"/var/lib/proxyd\"\n[[route]]\nname = \"gone\"\nto = \"10.0.0.1:80\"\n[[route]]\nname = \"main\"\nhost = \"a\"\nto = \"10.0.0.1:80\"\n",
		"/etc/proxyd/conf.d/one.toml":    "\n\n\n[[route]]\nname = \"included\"\nhost = \"b\"\nto = \"10.0.0.1:80\"\n",
		"/etc/proxyd/conf.d/two.toml":    "route = [\n  { name = \"inline\", host = \"d\", to = \"10.0.0.1:80\" },\n]\n",
		"/var/lib/proxyd/" + ChangesFile: "[remove]\nroute = [\"gone\"]\n[[route]]\nname = \"added\"\nhost = \"c\"\nto = \"10.0.0.1:80\"\n",
	})
	want := map[string]string{
		"main": mainFile + ":6", "included": "/etc/proxyd/conf.d/one.toml:4", "inline": "/etc/proxyd/conf.d/two.toml:2", "added": "/var/lib/proxyd/" + ChangesFile + ":3",
	}
	for _, r := range c.Route {
		if got := fmt.Sprintf("%s:%d", r.File, r.Line); got != want[r.Name] {
			t.Errorf("route %q stands at %s, want %s", r.Name, got, want[r.Name])
		}
	}
	if len(c.Route) != len(want) {
		t.Errorf("%d routes, want %d", len(c.Route), len(want))
	}
}
