package internal

import (
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
	var tests strings.Builder
	for _, root := range []string{".", "../cmd"} {
		err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(p, "_test.go") {
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
	for _, n := range named {
		if !strings.Contains(tests.String(), "\nfunc "+n[1]+"(") {
			t.Errorf("docs/THREAT-MODEL.md names %s, which does not exist", n[1])
		}
	}
}
