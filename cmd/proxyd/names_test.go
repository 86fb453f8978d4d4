package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"proxyd/internal/dataplane/engine"
	"proxyd/internal/dataplane/proxy"
)

// notBuilt are the beginnings of names that alerts and panels may use before there is
// such a thing: a rule over a series that is not there is silent.
var notBuilt = []string{"proxyd_ratelimit_", "proxyd_bans_", "proxyd_waf_", "proxyd_cache_",
	"proxyd_upstream_queue_length"}

// metricNames are all names that a page of this binary can have.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{"up": true} // Prometheus' own
	n := &node{plane: proxy.New(proxy.Options{Engine: engine.New(engine.Config{})}), taken: newTakeovers(), applies: newApplies(), rotations: newRotations()}
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		n.plane.Describe(descs)
		clusterMetrics{n}.Describe(descs)
		n.taken.Describe(descs)
		n.applies.Describe(descs)
		n.rotations.Describe(descs)
		newOrders().Describe(descs)
		for _, c := range []prometheus.Collector{newSlowBatches(nil), newRefused(nil), newRests(nil), checksOfQUIC{}} {
			c.Describe(descs)
		}
	}()
	quoted := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range descs {
		names[quoted.FindStringSubmatch(d.String())[1]] = true
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), goCollector())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

// A name in an alert, a panel or a page of the docs that no page of metrics has is a
// mistake, or of what is not built yet.
func TestAlertsPanelsAndDocsNameMetricsThatExist(t *testing.T) {
	known := metricNames(t)
	word := regexp.MustCompile(`\b(?:proxyd|go|process)_[a-z0-9_]+\b`)
	for _, file := range []string{"alerts.yml", "alerts_test.yml", "alerts_day_test.yml"} {
		checkNames(t, known, "../../deploy/prometheus/"+file, word)
	}
	for _, file := range []string{"deploy/grafana/proxyd.json", "docs/OBSERVABILITY.md", "docs/OPERATIONS.md"} {
		checkNames(t, known, "../../"+file, word)
	}
}

func checkNames(t *testing.T, known map[string]bool, file string, word *regexp.Regexp) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range word.FindAllString(string(text), -1) {
		if seen[name] {
			continue
		}
		seen[name] = true
		whole := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} { // of histograms
			if base, ok := strings.CutSuffix(name, suffix); ok && known[base] {
				whole = base
			}
		}
		built := true
		for _, begins := range notBuilt {
			built = built && !strings.HasPrefix(name, begins)
		}
		if built && !known[whole] {
			t.Errorf("%s: there is no metric %s", file, name)
		}
	}
	if len(seen) == 0 {
		t.Errorf("%s: no names found", file)
	}
}

// Every alert says what it is and what to do, and is played both ways.
func TestEveryAlertIsAnnotatedAndTested(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var tests []byte
	for _, file := range []string{"alerts_test.yml", "alerts_day_test.yml"} {
		text, err := os.ReadFile("../../deploy/prometheus/" + file)
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, text...)
	}
	alerts := strings.Split(string(rules), "- alert: ")[1:]
	for _, a := range alerts {
		name, _, _ := strings.Cut(a, "\n")
		for _, want := range []string{"labels: {severity: ", "      summary: ", "      action: "} {
			if !strings.Contains(a, want) {
				t.Errorf("%s has no %q", name, strings.TrimSpace(want))
			}
		}
		for _, want := range []string{"- name: " + name + " fires\n", "- name: " + name + " is silent\n"} {
			if !strings.Contains(string(tests), want) {
				t.Errorf("no test of the alerts is %q", strings.TrimSpace(want))
			}
		}
	}
	if len(alerts) < 30 {
		t.Errorf("%d alerts", len(alerts))
	}
}

func TestTheDashboardIsWhole(t *testing.T) {
	text, err := os.ReadFile("../../deploy/grafana/proxyd.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title      string
		UID        string
		Templating struct{ List []struct{ Name string } }
		Panels     []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	variables := map[string]bool{"__rate_interval": true, "__range": true}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
	}
	used := regexp.MustCompile(`\$([a-z_]+)`)
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q is not whole", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, q := range p.Targets {
			if strings.Count(q.Expr, "(") != strings.Count(q.Expr, ")") {
				t.Errorf("%q: %s", p.Title, q.Expr)
			}
			for _, m := range used.FindAllStringSubmatch(q.Expr, -1) {
				if !variables[m[1]] {
					t.Errorf("%q uses $%s, which is no variable", p.Title, m[1])
				}
			}
		}
	}
	if d.Title == "" || d.UID == "" || len(d.Panels) < 40 {
		t.Errorf("%q has %d panels", d.Title, len(d.Panels))
	}
}
