package internal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// allowed is the picture in docs/ARCHITECTURE.md: who may import whom, of ours.
var allowed = map[string]string{
	"acme":                "cert",
	"baton":               "",
	"clock":               "",
	"config":              "cert",
	"cert":                "",
	"control":             "doctor history",
	"doctor":              "",
	"freeport":            "",
	"history":             "ondisk",
	"ondisk":              "",
	"backup":              "config",
	"notify":              "",
	"lab":                 "control",
	"lab/pebble":          "freeport",
	"memory":              "",
	"memory/memorytest":   "memory",
	"track":               "config",
	"vip":                 "clock vip/fence vip/gather vip/relay",
	"vip/bpf":             "",
	"vip/fence":           "clock vip/bpf vip/gather",
	"vip/gather":          "",
	"vip/relay":           "clock vip/bpf vip/gather",
	"vip/viptest":         "clock vip vip/fence",
	"ha/election":         "clock memory ha/wire",
	"ha/detect":           "clock",
	"ha/rehearsal":        "clock ha/election",
	"ha/state":            "ha/wire",
	"ha/wire":             "",
	"ha/wire/wiretest":    "",
	"ha":                  "clock memory config ha/election ha/detect ha/state ha/wire",
	"ha/beat":             "clock memory config ha ha/datagram ha/election ha/detect ha/wire",
	"ha/datagram":         "",
	"ha/keyring":          "ondisk",
	"ha/gossip":           "clock config ha ha/datagram ha/election ha/state ha/wire",
	"dataplane":           "",
	"dataplane/http1":     "dataplane",
	"dataplane/files":     "dataplane dataplane/http1",
	"dataplane/route":     "config dataplane",
	"dataplane/filter":    "config dataplane dataplane/http1",
	"dataplane/upstream":  "clock cert config dataplane dataplane/http1 dataplane/proxyheader",
	"dataplane/overload":  "",
	"dataplane/http2":     "dataplane dataplane/http1",
	"dataplane/engine":    "dataplane dataplane/http1 dataplane/http2 dataplane/http3 dataplane/proxyheader",
	"dataplane/accesslog": "config dataplane",
	"dataplane/otlp":      "",
	"dataplane/proxy":     "clock cert config dataplane dataplane/accesslog dataplane/engine dataplane/files dataplane/filter dataplane/http1 dataplane/otlp dataplane/overload dataplane/proxyheader dataplane/route dataplane/upstream",

	"dataplane/proxyheader": "dataplane",
	"dataplane/http3":       "dataplane",
}

// forbidden names what may not be imported, with the reason that a reader is owed.
var forbidden = []struct{ pkg, imports, why string }{
	{"ha/election", "net os time/tick log/slog", "the election is a value: no socket, file or logger"},
	{"doctor", "net os net/http log/slog", "it judges what it is given"},
	{"history", "net net/http log/slog", "entries go to a directory, and to other nodes by whoever asks for them"},
	{"ha/detect", "net os log/slog", "detection is a value"},
	{"ha/state", "net os log/slog", "merging is a value"},
	{"dataplane/http1", "net os net/http log/slog", "the parser works on bytes alone"},
	{"dataplane/http2", "net os net/http log/slog", "a connection is fed bytes and told the time"},
	{"dataplane/proxyheader", "os time log/slog", "the header is bytes"},
	{"dataplane/overload", "net os time/tick log/slog", "the gate works on numbers it is told"},
	{"dataplane/route", "net os net/http log/slog", "finding a route never blocks"},
	{"dataplane/filter", "net net/http log/slog", "a filter decides about heads and bodies, and reaches a server by a Fetcher alone"},
	{"cert", "net os/exec net/http", "certificates come from files, and TLS is spoken elsewhere"},
	{"config", "net os/exec net/http log/slog", "a file is judged without touching the host"},
}

func TestArrows(t *testing.T) {
	const module = "proxyd/internal/"
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(p))
		may, known := allowed[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the picture", p, pkg)
		}
		for _, i := range f.Imports {
			dep, _ := strconv.Unquote(i.Path.Value)
			for _, rule := range forbidden {
				if rule.pkg == pkg && strings.Contains(" "+rule.imports+" ", " "+dep+" ") {
					t.Errorf("%s: %s may not import %s: %s", p, pkg, dep, rule.why)
				}
			}
			dep, ours := strings.CutPrefix(dep, module)
			if ours && !strings.Contains(" "+may+" ", " "+dep+" ") {
				t.Errorf("%s: %s may not import %s", p, pkg, dep)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
