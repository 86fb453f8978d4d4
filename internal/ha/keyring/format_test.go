package keyring

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"proxyd/internal/ha/wire/wiretest"
	"proxyd/internal/ondisk"
)

func TestFileKeepsItsFormat(t *testing.T) {
	want := ring{Keys: []Key{{1, time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), "a later secret"}, {0, time.Time{}, "the first secret"}}, Past: []string{"8be1437f90aa"}}
	text, err := encode(want)
	if err != nil {
		t.Fatal(err)
	}
	all := wiretest.Golden(t, "v1/keys.json", text)
	// As the first nodes had it: without a version.
	all = append(all, []byte(`{"keys":[{"number":1,"since":"2026-05-01T12:00:00Z","secret":"a later secret"},{"number":0,"secret":"the first secret"}],"past":["8be1437f90aa"]}`))
	for i, text := range all {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), text, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := Open(Config{Dir: dir, Secret: "the first secret", Log: slog.New(slog.DiscardHandler)})
		if err != nil || !reflect.DeepEqual(k.ring, want) {
			t.Errorf("number %d: %+v, %v", i+1, k.ring, err)
		}
	}
}

// A node that went back a release must not forget the keys that the later one had.
func TestRingOfALaterReleaseStays(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, File)
	const later = `{"version":2,"rings":[{"sealed":"..."}]}`
	if err := os.WriteFile(file, []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Secret: "a secret", Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, ondisk.ErrNewer) {
		t.Errorf("Open = %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != later {
		t.Errorf("the file is %q now, %v", text, err)
	}
}
