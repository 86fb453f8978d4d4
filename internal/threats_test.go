package internal

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatsAreHeld keeps docs/THREAT-MODEL.md true: every test that it names exists.
func TestThreatsAreHeld(t *testing.T) {
	model, err := os.ReadFile("../docs/THREAT-MODEL.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(model), -1)
	if len(named) == 0 {
		t.Fatal("docs/THREAT-MODEL.md names no test")
	}
	tests := allTests(t)
	for _, n := range named {
		if !strings.Contains(tests, "\nfunc "+n[1]+"(") {
			t.Errorf("docs/THREAT-MODEL.md names %s, which does not exist", n[1])
		}
	}
}

// allTests returns the text of every test file and dialogue.
func allTests(t *testing.T) string {
	t.Helper()
	var tests strings.Builder
	for _, root := range []string{".", "../cmd"} {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(p, "_test.go") && filepath.Base(filepath.Dir(p)) != "dialogues" {
				return err
			}
			text, err := os.ReadFile(p)
			tests.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return tests.String()
}

// Each id of the checklist is in the model, and in the name, a comment or a case of a test, unless
// the model says that it is not there yet.
func TestEveryThreatHasATest(t *testing.T) {
	model, err := os.ReadFile("../docs/THREAT-MODEL.md")
	if err != nil {
		t.Fatal(err)
	}
	held, later, ok := strings.Cut(string(model), "\nNot there yet")
	if !ok {
		t.Fatal("docs/THREAT-MODEL.md does not say what is not there yet")
	}
	tested := map[string]bool{}
	ids := regexp.MustCompile(`\b[SABCDEG][0-9]{1,2}\b`)
	tests := allTests(t)
	for _, where := range []string{
		`^func (?:Test|Fuzz)((?:[SABCDEG][0-9]{1,2})+)`,
		`^func (?:Test|Fuzz).*(//.*)`,
		`^\s*(//.*)`,
		`"((?:[SABCDEG][0-9]{1,2}[,: ]+)+)[^"]*"`, // what a case is called
		`"([SABCDEG][0-9]{1,2})"`,
		`^-- (.*) --$`, // what a dialogue is called
	} {
		for _, m := range regexp.MustCompile(`(?m)`+where).FindAllStringSubmatch(tests, -1) {
			// In a name one follows the other.
			for _, id := range ids.FindAllString(regexp.MustCompile(`[0-9]+`).ReplaceAllString(m[1], "$0 "), -1) {
				tested[id] = true
			}
		}
	}
	for family, last := range map[string]int{"S": 20, "A": 13, "B": 10, "C": 7, "D": 9, "E": 11, "G": 10} {
		for i := 1; i <= last; i++ {
			id := fmt.Sprint(family, i)
			row := regexp.MustCompile(`(?m)^\| ([A-Z][0-9]+ )*` + id + `[ |]`)
			switch {
			case row.MatchString(held) && tested[id]:
			case regexp.MustCompile(`\b` + id + `\b`).MatchString(later):
			case !row.MatchString(held):
				t.Errorf("%s is not in docs/THREAT-MODEL.md", id)
			default:
				t.Errorf("%s is in no test", id)
			}
		}
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// RE2 is what the standard library has. Expressions of any other kind can take for ever.
func TestE6OnlyRE2(t *testing.T) {
	if m := regexp.MustCompile(`(?i)[^\s]*(regexp2|pcre|onigur|hyperscan)[^\s]*`).Find(mustRead(t, "../go.mod")); m != nil {
		t.Errorf("go.mod has %s", m)
	}
}

func TestG10WhatProxydIsBuiltOf(t *testing.T) {
	if regexp.MustCompile(`(?m)^\s*replace\b`).Match(mustRead(t, "../go.mod")) {
		t.Error("go.mod replaces a module: go.sum does not say what is built")
	}
	sums := string(mustRead(t, "../go.sum"))
	for _, m := range regexp.MustCompile(`(?m)^\t?(?:require )?([^\s]+/[^\s]+) (v[^\s]+)`).FindAllStringSubmatch(string(mustRead(t, "../go.mod")), -1) {
		if !strings.Contains(sums, m[1]+" "+m[2]+"/go.mod h1:") {
			t.Errorf("go.sum does not pin %s %s", m[1], m[2])
		}
	}
	make := string(mustRead(t, "../Makefile"))
	for _, want := range []string{"-trimpath", "CGO_ENABLED=0 $(BUILD)", "govulncheck@v", "cyclonedx-gomod@v", "\nreproducible:", "\nfuzz:"} {
		if !strings.Contains(make, want) {
			t.Errorf("the Makefile has no %q", want)
		}
	}
}

// Whatever reads bytes that come from outside has a fuzz target.
func TestG10ReadersOfForeignBytesAreFuzzed(t *testing.T) {
	for _, dir := range []string{
		"config", "backup", "baton", "cert", "history", "track", "vip", "ha", "ha/beat", "ha/election", "ha/gossip", "ha/state",
		"dataplane/http1", "dataplane/http2", "dataplane/http3", "dataplane/proxyheader", "dataplane/proxy", "dataplane/route",
		"dataplane/files", "dataplane/filter", "dataplane/upstream",
	} {
		files, err := filepath.Glob(dir + "/*_test.go")
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no tests (%v)", dir, err)
		}
		fuzzed := false
		for _, f := range files {
			fuzzed = fuzzed || strings.Contains(string(mustRead(t, f)), "\nfunc Fuzz")
		}
		if !fuzzed {
			t.Errorf("%s has no fuzz target", dir)
		}
	}
}
