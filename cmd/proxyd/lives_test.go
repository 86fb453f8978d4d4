package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestACrashLoopMakesUnfitForAGrowingTime(t *testing.T) {
	dir, now := t.TempDir(), time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	begin := func(goesOn bool) *lives {
		t.Helper()
		l, err := openLives(dir, now, goesOn)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	begin(false) // the first life
	for i, want := range []time.Duration{0, 0, 30 * time.Second, time.Minute, 2 * time.Minute} {
		now = now.Add(time.Second)
		l := begin(false)
		if rest := max(l.until.Sub(now), 0); rest != want {
			t.Errorf("after %d crashes it rests for %v, want %v", i+1, rest, want)
		}
		if why := l.rests(now); (why != "") != (want > 0) {
			t.Errorf("after %d crashes: %q", i+1, why)
		}
	}
	l := begin(true)
	if l.count != 5 || !strings.Contains(l.rests(now), "5 times") || l.rests(now.Add(2*time.Minute)) != "" {
		t.Errorf("a process that takes another's place: %d crashes, %q", l.count, l.rests(now))
	}
	if err := l.farewell(); err != nil {
		t.Fatal(err)
	}
	if l := begin(false); l.count != 5 {
		t.Errorf("a start after a farewell counts as a crash: %d", l.count)
	}
	now = now.Add(crashWindow)
	if l := begin(false); l.count != 0 || l.rests(now) != "" {
		t.Errorf("what is long ago counts: %d", l.count)
	}
	for range 5 {
		now = now.Add(shortLife)
		if l := begin(false); l.count != 0 {
			t.Errorf("the end of a life that was long enough counts: %d", l.count)
		}
	}
}

func TestABrokenRecordOfLivesMakesNobodyUnfit(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "lives.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := openLives(dir, time.Now(), false)
	if err == nil || l.rests(time.Now()) != "" {
		t.Errorf("%v, %q", err, l.rests(time.Now()))
	}
	// It is good again from then on.
	if _, err := openLives(dir, time.Now(), false); err != nil {
		t.Error(err)
	}
}
