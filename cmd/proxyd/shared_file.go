package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"proxyd/internal/ha/state"
	"proxyd/internal/ondisk"
)

// keptEntry is one entry of the shared state in a file. Values are JSON.
type keptEntry struct {
	Kind    string          `json:"kind"`
	Key     string          `json:"key"`
	Value   json.RawMessage `json:"value,omitempty"`
	Deleted bool            `json:"deleted,omitempty"`
	Expires time.Time       `json:"expires,omitzero"`
	Term    uint64          `json:"term"`
	Seq     uint64          `json:"seq"`
	Node    string          `json:"node"`
}

// save writes the entries of some kinds to a file, so that they outlive this process.
func (s *shared) save(file string, kinds ...string) error {
	text, err := json.MarshalIndent(s.entries(kinds...), "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(file, append(text, '\n'), 0o640)
}

// entries returns the entries of some kinds, of all if none is given, tombstones too.
func (s *shared) entries(kinds ...string) []keptEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.Expire(time.Now())
	all := []keptEntry{}
	for _, e := range s.store.All() {
		if len(kinds) == 0 || slices.Contains(kinds, e.Kind) {
			all = append(all, keptEntry{e.Kind, e.Key, e.Value, e.Deleted, e.Expires, e.Stamp.Term, e.Stamp.Seq, e.Stamp.Node})
		}
	}
	return all
}

// restore takes in what save wrote. A file that cannot be read is moved aside, and the
// error says so.
func (s *shared) restore(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var all []keptEntry
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if newer := ondisk.Check(text, 1); newer != nil {
		aside := file + ".newer"
		return fmt.Errorf("what operators asked for is not known: %w (the file is kept as %s)", errors.Join(newer, os.Rename(file, aside)), aside)
	}
	if err != nil {
		aside := file + ".bad"
		return fmt.Errorf("what operators asked for in an earlier life is lost (the file is moved to %s): %w", aside, errors.Join(err, os.Rename(file, aside)))
	}
	s.take(all)
	return nil
}

// take takes in entries of a file.
func (s *shared) take(all []keptEntry) {
	var entries []state.Entry
	for _, k := range all {
		e := state.Entry{Kind: k.Kind, Key: k.Key, Value: k.Value, Deleted: k.Deleted, Expires: k.Expires, Stamp: state.Stamp{Term: k.Term, Seq: k.Seq, Node: k.Node}}
		if e.Deleted {
			e.Value = nil
		}
		entries = append(entries, e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.Merge(entries)
}
