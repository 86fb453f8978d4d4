// Package vagrant has no code: its tests hold the scripts of the virtual stage together.
package vagrant

import (
	"bufio"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestScriptsAreShell(t *testing.T) {
	scripts, err := filepath.Glob("provision/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(scripts, "on", "drill") {
		if out, err := exec.Command("sh", "-n", name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		if s, err := os.Stat(name); err != nil || s.Mode()&0o111 == 0 {
			t.Errorf("%s cannot be run: %v", name, err)
		}
	}
}

// The scripts of the drills may be played here and in namespaces alike, so both must know
// every verb that drills/README.md lists.
func TestEveryVerbIsKnown(t *testing.T) {
	page, err := os.ReadFile("drills/README.md")
	if err != nil {
		t.Fatal(err)
	}
	on, err := os.ReadFile("on")
	if err != nil {
		t.Fatal(err)
	}
	verbs := 0
	for line := range strings.Lines(string(page)) {
		cell, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		cell, _, _ = strings.Cut(cell, " | ")
		for _, word := range regexp.MustCompile("(?:^|`)([a-z]+)[^`]*`").FindAllStringSubmatch(cell, -1) {
			verbs++
			if !regexp.MustCompile(`(?m)^(\w+ \| )*` + word[1] + `( \| \w+)*\)`).Match(on) {
				t.Errorf("`on HOST %s` is documented and not known here", word[1])
			}
		}
	}
	if verbs < 15 {
		t.Errorf("%d verbs were found on the page", verbs)
	}
}

func TestHostsHaveAddressesOfTheirOwn(t *testing.T) {
	f, err := os.Open("topology.yml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[netip.Addr]string{}
	address := regexp.MustCompile(`\d+\.\d+\.\d+\.\d+`)
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, text := range address.FindAllString(line, -1) {
			a, err := netip.ParseAddr(text)
			if err != nil {
				t.Errorf("%q: %v", line, err)
			}
			if other, twice := seen[a]; twice {
				t.Errorf("%s is in %q and in %q", a, other, line)
			}
			seen[a] = line
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d addresses", len(seen))
	}
}

func TestVagrantValidates(t *testing.T) {
	if _, err := exec.LookPath("vagrant"); err != nil {
		t.Skip("vagrant is not installed")
	}
	cmd := exec.Command("vagrant", "validate", "--ignore-provider")
	cmd.Env = append(os.Environ(), "VAGRANT_DOTFILE_PATH="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
