package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/ha/wire/wiretest"
	"proxyd/internal/ondisk"
)

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// put writes a file of a state directory and returns where it is.
func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return file
}

// stays fails unless a file has the text still.
func stays(t *testing.T, file, text string) {
	t.Helper()
	if got, err := os.ReadFile(file); err != nil || string(got) != text {
		t.Errorf("%s is %q now, %v; it was %q", file, got, err, text)
	}
}

func TestRecordOfLivesKeepsItsFormat(t *testing.T) {
	dir := t.TempDir()
	l := &lives{file: filepath.Join(dir, "lives.json")}
	if err := l.write(livesRecord{Runs: true, Began: someTime, Crashes: []time.Time{someTime}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	all := wiretest.Golden(t, "v1/lives.json", text)
	all = append(all, []byte(`{"runs":true,"began":"2026-01-02T03:04:05Z","crashes":["2026-01-02T03:04:05Z"]}`)) // the first release
	for i, text := range all {
		dir := t.TempDir()
		put(t, dir, "lives.json", string(text))
		if l, err := openLives(dir, someTime.Add(time.Second), false); err != nil || l.count != 2 || !strings.Contains(l.before, "without a farewell") {
			t.Errorf("number %d: %+v, %v", i+1, l, err)
		}
	}
	const later = `{"version":2,"ends":[]}`
	file := put(t, t.TempDir(), "lives.json", later)
	l, err = openLives(filepath.Dir(file), someTime, false)
	if !errors.Is(err, ondisk.ErrNewer) || l.rests(someTime) != "" {
		t.Errorf("of a later release: %+v, %v", l, err)
	}
	if err := l.farewell(); !errors.Is(err, ondisk.ErrNewer) {
		t.Errorf("farewell = %v", err)
	}
	stays(t, file, later)
}

func TestGenerationsKeepTheirFormat(t *testing.T) {
	g := generation{Number: 7, ID: "abc", From: 3, Time: someTime, By: "root", On: "edge-1", Comment: "more workers", Config: "7f3a91c04d11", State: rolledBack, Why: "a canary failed",
		Bundle: bundle{Main: "[node]\n", Included: []control.File{{Name: "more.toml", Text: "# more\n"}}}, Written: "d1", Before: "d0"}
	dir := generationsIn(t.TempDir())
	if err := os.MkdirAll(string(dir), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := dir.save(g); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir.file(7))
	if err != nil {
		t.Fatal(err)
	}
	all := wiretest.Golden(t, "v1/generation.json", text)
	all = append(all, []byte(strings.Replace(string(text), ` "version": 1,`+"\n", "", 1))) // the first release
	for i, text := range all {
		d := generationsIn(t.TempDir())
		put(t, string(d), "000007.json", string(text))
		got := d.all()
		if len(got) == 1 {
			got[0].Version = 0
		}
		if len(got) != 1 || !reflect.DeepEqual(got[0], g) {
			t.Errorf("number %d: %+v", i+1, got)
		}
	}

	// What a later release wrote is left out, and neither written over nor forgotten.
	const later = `{"version":2,"number":9}`
	file := put(t, string(dir), "000009.json", later)
	if got := dir.all(); len(got) != 1 || dir.highest() != 9 {
		t.Errorf("%d generations, the highest %d", len(got), dir.highest())
	}
	g.Number = 9
	if err := dir.save(g); !errors.Is(err, ondisk.ErrNewer) {
		t.Errorf("save = %v", err)
	}
	stays(t, file, later)
}

func TestTrialKeepsItsFormat(t *testing.T) {
	dir := generationsIn(t.TempDir())
	if err := os.MkdirAll(string(dir), 0o750); err != nil {
		t.Fatal(err)
	}
	want := trial{Version: 1, ID: "abc", Number: 7, Before: bundle{Main: "# before\n"}, After: bundle{Main: "# after\n"}}
	if err := dir.saveTrial(&want); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir.trialFile())
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range wiretest.Golden(t, "v1/trial.json", text) {
		put(t, string(dir), "trial.json", string(text))
		if got, err := dir.loadTrial(); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("number %d: %+v, %v", i+1, got, err)
		}
	}
	const later = `{"version":2}`
	file := put(t, string(dir), "trial.json", later)
	if _, err := dir.loadTrial(); !errors.Is(err, ondisk.ErrNewer) {
		t.Errorf("loadTrial = %v", err)
	}
	stays(t, file, later)
}

func TestWishesOfALaterReleaseAreKept(t *testing.T) {
	const later = `{"version":2,"entries":[]}`
	file := put(t, t.TempDir(), standingsFile, later)
	if err := newShared("edge-1").restore(file); !errors.Is(err, ondisk.ErrNewer) {
		t.Errorf("restore = %v", err)
	}
	stays(t, file+".newer", later)
}

// The words that two processes say to each other before they know each other's release.
func TestHelloKeepsItsFormat(t *testing.T) {
	for name, words := range map[string]any{
		"hello":   helloWords{Succession: 1, Newest: 1, PID: 8123, Version: control.Version{Version: "1.4.0"}},
		"sockets": socketsWords{Succession: 1, PID: 8122, Version: control.Version{Version: "1.3.2"}},
	} {
		text, err := json.Marshal(words)
		if err != nil {
			t.Fatal(err)
		}
		wiretest.Golden(t, "v1/"+name+".json", text)
	}
}

func TestProcessesAgreeOnAConversation(t *testing.T) {
	oldest, newest := successions()
	for _, c := range []struct {
		oldest, newest int // of the one that comes
		want           int // 0: refused
	}{
		{oldest, newest, newest},
		{newest, 0, newest},          // of the first release, which says one number
		{oldest, newest + 3, newest}, // a later one that speaks this one's too
		{newest + 1, newest + 2, 0},
	} {
		got, err := agree(helloWords{Succession: c.oldest, Newest: c.newest, Version: control.Version{Version: "9.9"}})
		if got != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("with %d to %d: %d, %v; want %d", c.oldest, c.newest, got, err, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), "9.9") || !strings.Contains(err.Error(), "release in between")) {
			t.Errorf("the error does not say what to do: %v", err)
		}
	}
}
