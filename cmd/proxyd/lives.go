package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"proxyd/internal/ondisk"
)

const (
	// shortLife is from one start to the next of a process that crashes in a loop. One that
	// ran for longer has been killed, or its host was.
	shortLife = 5 * time.Second
	// crashWindow is how long a short life without farewell is held against a node.
	crashWindow = 10 * time.Minute
	// crashesBorne are how many of them in that time cost nothing.
	crashesBorne = 2
	// firstRest is how long a node is unfit after one more; it doubles with each, up to
	// longestRest.
	firstRest   = 30 * time.Second
	longestRest = 10 * time.Minute
)

// livesVersion is that of a livesRecord.
const livesVersion = 1

// A livesRecord is what is on the disk of the lives of this node's process, so that one
// which crashes again and again does not take the addresses again and again.
type livesRecord struct {
	Version int         `json:"version"`
	Runs    bool        `json:"runs"`  // the last life has not said farewell
	Began   time.Time   `json:"began"` // when it started
	Crashes []time.Time `json:"crashes"`
}

// lives is the record in use.
type lives struct {
	file  string
	until time.Time // when this node is fit again
	count int       // crashes within crashWindow
	// before says how the life before ended: "" if there was none, or another process of it lives.
	before string
}

// openLives reads the record in dir and notes that a life begins. goesOn says that it takes
// the place of a living process, whose end it is not. What cannot be read or written is an
// error, and the lives returned are those of a node that never crashed; a record that says
// nothing is begun anew.
func openLives(dir string, now time.Time, goesOn bool) (*lives, error) {
	l := &lives{file: filepath.Join(dir, "lives.json")}
	var r livesRecord
	var damaged error
	text, err := os.ReadFile(l.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = os.MkdirAll(dir, 0o750)
	case err == nil:
		if newer := ondisk.Check(text, livesVersion); newer != nil {
			return l, fmt.Errorf("record of this node's lives: %s: %w", l.file, newer)
		}
		if damaged = json.Unmarshal(text, &r); damaged != nil {
			r, damaged = livesRecord{}, fmt.Errorf("record of this node's lives: %s: %w; it is begun anew", l.file, damaged)
		}
	}
	if err != nil {
		return l, fmt.Errorf("record of this node's lives: %w", err)
	}
	switch {
	case goesOn || r.Began.IsZero():
	case r.Runs:
		l.before = "the process before ended without a farewell"
	default:
		l.before = "the process before was stopped in good order"
	}
	if d := now.Sub(r.Began); r.Runs && !goesOn && d >= 0 && d < shortLife {
		r.Crashes = append(r.Crashes, now)
	}
	r.Runs, r.Began = true, now
	recent := r.Crashes[:0]
	for _, at := range r.Crashes {
		if d := now.Sub(at); d < crashWindow && d >= 0 {
			recent = append(recent, at)
		}
	}
	r.Crashes = recent
	if l.count = len(recent); l.count > crashesBorne {
		l.until = recent[l.count-1].Add(restAfter(l.count))
	}
	return l, errors.Join(damaged, l.write(r))
}

// restAfter is how long a node is unfit that crashed so often.
func restAfter(crashes int) time.Duration {
	rest := firstRest
	for range crashes - crashesBorne - 1 {
		if rest = 2 * rest; rest >= longestRest {
			return longestRest
		}
	}
	return rest
}

// rests says why this node is not to hold anything yet; "" if it may.
func (l *lives) rests(now time.Time) string {
	if l == nil || !now.Before(l.until) {
		return ""
	}
	return fmt.Sprintf("it crashed %d times within %v, soon after its start: it stands by until %s", l.count, crashWindow, l.until.UTC().Format(time.TimeOnly+"Z"))
}

// farewell notes that this life ends as it should.
func (l *lives) farewell() error {
	var r livesRecord
	text, err := os.ReadFile(l.file)
	if err == nil {
		err = ondisk.Check(text, livesVersion)
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return err
	}
	r.Runs = false
	return l.write(r)
}

func (l *lives) write(r livesRecord) error {
	r.Version = livesVersion
	text, err := json.Marshal(r)
	if err == nil {
		err = replaceFile(l.file, text, 0o640)
	}
	return err
}
