package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A command is one that a page of the docs names.
type command struct {
	where string
	words []string // the program first
}

var (
	codeSpan = regexp.MustCompile("`([^`]+)`")
	oneWord  = regexp.MustCompile(`^[a-z]+$`)
	oneFlag  = regexp.MustCompile(`^--?[a-z][a-z-]*$`)
)

// commands lists the commands in the code of a page: in its spans, and each at the
// beginning of a line in its blocks.
func commands(t *testing.T, file string) (all []command) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(string(text), "```") {
		code := strings.Split(part, "\n")
		if i%2 == 0 {
			code = nil
			for _, span := range codeSpan.FindAllStringSubmatch(part, -1) {
				code = append(code, strings.ReplaceAll(span[1], "\n", " "))
			}
		}
		for _, line := range code {
			line, _, _ = strings.Cut(line, " #")
			line, _, _ = strings.Cut(line, " || ")
			line = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "$ "), "sudo ")
			words := strings.Fields(strings.NewReplacer(`\|`, "|", "[", " ", "]", " ").Replace(line))
			if len(words) > 1 && (words[0] == "hactl" || words[0] == "proxyd") {
				all = append(all, command{file, words})
			}
		}
	}
	return all
}

// helps asks the built programs for their help, each command once.
type helps struct {
	t     *testing.T
	path  map[string]string // of each program
	known map[string]string
}

// of returns the help of a command, "" if there is no such command.
func (h *helps) of(words ...string) string {
	h.t.Helper()
	name := strings.Join(words, " ")
	if text, ok := h.known[name]; ok {
		return text
	}
	out, err := exec.Command(h.path[words[0]], append(words[1:], "--help")...).Output()
	if err != nil {
		h.t.Fatalf("%s --help: %v", name, err)
	}
	text := string(out)
	if _, usage, _ := strings.Cut(text, "Usage:\n"); !strings.HasPrefix(strings.TrimSpace(usage)+" ", name+" ") {
		text = "" // the help is that of the command above
	}
	h.known[name] = text
	return text
}

// TestDocsNameCommandsThatExist holds the README and the docs to the programs: commands,
// the words behind them, and flags.
func TestDocsNameCommandsThatExist(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the programs")
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir+"/", "proxyd/cmd/hactl", "proxyd/cmd/proxyd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	h := &helps{t: t, path: map[string]string{"hactl": dir + "/hactl", "proxyd": dir + "/proxyd"}, known: map[string]string{}}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, page := range append(pages, "../../README.md") {
		for _, c := range commands(t, page) {
			for _, first := range strings.Split(c.words[1], "|") {
				named[c.words[0]+" "+first] = true
				h.check(c, first)
			}
		}
	}
	// And what there is has been named.
	for _, program := range []string{"hactl", "proxyd"} {
		_, list, _ := strings.Cut(h.of(program), "Available Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		for line := range strings.Lines(list) {
			if name := program + " " + strings.Fields(line)[0]; !named[name] && !strings.HasSuffix(name, " help") && name != "proxyd completion" {
				t.Errorf("%s is in no page", name)
			}
		}
	}
}

// check checks one command of a page.
func (h *helps) check(c command, first string) {
	line := strings.Join(c.words, " ")
	help := h.of(c.words[0], first)
	if help == "" {
		h.t.Errorf("%s: there is no command %q in %q", c.where, first, line)
		return
	}
	rest := c.words[2:]
	if len(rest) > 0 && oneWord.MatchString(rest[0]) {
		help += h.of(c.words[0], first, rest[0])
	}
	help = strings.NewReplacer("|", " ", ",", " ", "=", " ").Replace(help)
	for _, word := range rest {
		for _, w := range strings.Split(strings.TrimSuffix(word, ","), "|") {
			w, _, _ = strings.Cut(w, "=")
			if (oneWord.MatchString(w) || oneFlag.MatchString(w)) && !strings.Contains(strings.Join(strings.Fields(help), " ")+" ", " "+w+" ") {
				h.t.Errorf("%s: %s %s has no %q, which is in %q", c.where, c.words[0], first, w, line)
			}
		}
	}
}

// The README leads to every page, and each link of each page to something.
func TestLinksOfTheDocsLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	linked := map[string]bool{}
	for _, page := range append(pages, "../../README.md", "../../CHANGELOG.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target := filepath.Join(filepath.Dir(page), m[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: nothing is at %s", page, m[1])
			}
			if page == "../../README.md" {
				linked[target] = true
			}
		}
	}
	for _, page := range pages {
		if !linked[page] {
			t.Errorf("README.md does not lead to %s", page)
		}
	}
}
