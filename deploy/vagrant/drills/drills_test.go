package drills

import (
	"bytes"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// verbs are what `on HOST` understands; README.md says what they mean.
var verbs = []string{
	"kill", "start", "stop", "freeze", "thaw", "cut", "uncut", "silence", "unsilence", "isolate", "join",
	"poweroff", "poweron", "deafen", "hear", "mute", "speak", "lose", "hactl", "file", "run",
}

func TestEveryDrillIsWhole(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("%d drills", len(all))
	}
	spoken := regexp.MustCompile(`\bon "\$\w+" (\w+)`)
	for _, d := range all {
		if undone := bytes.Contains(d.Script, []byte("\nundo)")); undone != (d.Undo != nil) {
			t.Errorf("%s: its script undoes: %v; its drill.toml says how that is called: %v", d.Key, undone, d.Undo != nil)
		}
		for _, m := range spoken.FindAllSubmatch(d.Script, -1) {
			if !slices.Contains(verbs, string(m[1])) {
				t.Errorf("%s: its script says %q, which is no verb", d.Key, m[0])
			}
		}
		check := exec.Command("sh", "-n", "-s")
		check.Stdin = bytes.NewReader(d.Script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", d.Key, err, out)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := "name = \"n\"\nabout = \"a\"\n[promise]\noutage = \"1s\"\n"
	if _, err := Parse("good", good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no promise":      "name = \"n\"\nabout = \"a\"\n",
		"a misspelling":   good + "tow = \"1s\"\n",
		"an unnamed undo": good + "[undo]\noutage = \"1s\"\n",
		"no TOML":         "name",
	} {
		if d, err := Parse("bad", text); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
