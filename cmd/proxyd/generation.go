package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/ondisk"
)

// keptGenerations is how many generations a node keeps; the oldest is forgotten.
const keptGenerations = 20

// A bundle is a configuration as it stands on a disk: the main file and what it includes,
// by names relative to the directory of the main file, or absolute ones elsewhere.
type bundle struct {
	Main     string         `json:"main"`
	Included []control.File `json:"included,omitempty"`
}

// generationVersion is that of the files of generations and of the trial.
const generationVersion = 1

// A generation is one configuration that was applied to the cluster, or that was found on
// this node when one was. It is a file of node.state/generations.
type generation struct {
	Version int       `json:"version"`
	Number  uint64    `json:"number"`
	ID      string    `json:"id"`             // of the apply
	From    uint64    `json:"from,omitempty"` // a rollback: the generation whose text it is
	Time    time.Time `json:"time"`
	By      string    `json:"by"`
	On      string    `json:"on"` // the node where it was asked for
	Comment string    `json:"comment,omitempty"`
	Config  string    `json:"config"`           // hash
	State   string    `json:"state"`            // found | trial | applied | rolled back
	Why     string    `json:"why,omitempty"`    // it was rolled back
	Bundle  bundle    `json:"bundle"`           // as it was given, for any node
	Written string    `json:"written"`          // digest of what this node has on the disk while it is in force
	Before  string    `json:"before,omitempty"` // digest of what it had before
}

// The states of a generation on a node.
const (
	found      = "found"
	onTrial    = "trial"
	applied    = "applied"
	rolledBack = "rolled back"
)

// A trial is a generation in force that is not yet meant to stay. As a file it says, after a
// crash, what to put back.
type trial struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Number  uint64 `json:"number"`
	Before  bundle `json:"before"`
	After   bundle `json:"after"`

	config *config.Config // that was in force before
}

// generations is the directory of them.
type generations string

func generationsIn(state string) generations {
	return generations(filepath.Join(state, "generations"))
}

func (d generations) file(number uint64) string {
	return filepath.Join(string(d), fmt.Sprintf("%06d.json", number))
}

func (d generations) trialFile() string { return filepath.Join(string(d), "trial.json") }

// highest returns the highest number of which there is a file, whether it can be read or not.
func (d generations) highest() (number uint64) {
	names, _ := filepath.Glob(filepath.Join(string(d), "[0-9]*.json"))
	for _, name := range names {
		n, _ := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".json"), 10, 64)
		number = max(number, n)
	}
	return number
}

// all returns the generations, the oldest first. What cannot be read is left out, such as
// what a later release wrote.
func (d generations) all() []generation {
	names, _ := filepath.Glob(filepath.Join(string(d), "[0-9]*.json")) // the pattern is good
	slices.Sort(names)
	var out []generation
	for _, name := range names {
		var g generation
		if text, err := os.ReadFile(name); err == nil && ondisk.Check(text, generationVersion) == nil && json.Unmarshal(text, &g) == nil && d.file(g.Number) == name {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b generation) int { return int(a.Number) - int(b.Number) })
	return out
}

// find returns the generation for which ok reports true, the newest of several.
func (d generations) find(ok func(generation) bool) (generation, bool) {
	all := d.all()
	slices.Reverse(all)
	i := slices.IndexFunc(all, ok)
	if i < 0 {
		return generation{}, false
	}
	return all[i], true
}

// current is the latest that was applied to stay.
func (d generations) current() (generation, bool) {
	return d.find(func(g generation) bool { return g.State == applied })
}

// save writes a generation and forgets those that are too many.
func (d generations) save(g generation) error {
	if text, err := os.ReadFile(d.file(g.Number)); err == nil {
		if err := ondisk.Check(text, generationVersion); err != nil {
			return fmt.Errorf("keep generation %d: %s: %w", g.Number, d.file(g.Number), err)
		}
	}
	g.Version = generationVersion
	text, err := json.MarshalIndent(g, "", " ")
	if err != nil {
		return err
	}
	if err := replaceFile(d.file(g.Number), append(text, '\n'), 0o640); err != nil {
		return fmt.Errorf("keep generation %d: %w", g.Number, err)
	}
	all := d.all()
	for _, old := range all[:max(0, len(all)-keptGenerations)] {
		_ = os.Remove(d.file(old.Number)) // it is tried again by the next one
	}
	return nil
}

// asFound returns the text of a main file that was found here and says the same: what goes
// back to it gets its lines and comments back.
func (d generations) asFound(main string) string {
	g, ok := d.find(func(g generation) bool {
		return g.State == found && config.SameText([]byte(g.Bundle.Main), []byte(main))
	})
	if !ok {
		return main
	}
	return g.Bundle.Main
}

func (d generations) saveTrial(t *trial) error {
	t.Version = generationVersion
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return replaceFile(d.trialFile(), text, 0o640)
}

// loadTrial returns the trial that was under way when this node ended; nil if there was none.
func (d generations) loadTrial() (*trial, error) {
	text, err := os.ReadFile(d.trialFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("node.state: %w; the directory and what is in it must be of the user that proxyd runs as", err)
	}
	t := new(trial)
	if err == nil {
		if newer := ondisk.Check(text, generationVersion); newer != nil {
			return nil, fmt.Errorf("%s, which says what to put back after a crash in the middle of an apply: %w", d.trialFile(), newer)
		}
		err = json.Unmarshal(text, t)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, which says what to put back after a crash in the middle of an apply: %w; look at the configuration, then remove it", d.trialFile(), err)
	}
	return t, nil
}

func (d generations) endTrial() error {
	if err := os.Remove(d.trialFile()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// onDisk reads the configuration that stands at main.
func onDisk(main string) (bundle, error) {
	names, _ := config.Texts{Main: main}.Files()
	var b bundle
	for i, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return b, err
		}
		if i == 0 {
			b.Main = string(text)
		} else {
			b.Included = append(b.Included, control.File{Name: relative(main, name), Text: string(text)})
		}
	}
	return b, nil
}

// relative is how a bundle calls a file that main includes.
func relative(main, name string) string {
	dir := filepath.Dir(main)
	if rel, err := filepath.Rel(dir, name); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return name
}

// place is where a file of a bundle stands if its main file stands at main.
func place(main, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(filepath.Dir(main), name)
}

// texts is the bundle as if it stood at main, whatever does.
func (b bundle) texts(main string) config.Texts {
	t := config.Texts{Main: main, Text: []byte(b.Main), Included: map[string][]byte{}}
	for _, f := range b.Included {
		t.Included[place(main, f.Name)] = []byte(f.Text)
	}
	return t
}

func (b bundle) digest() string {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(b) // a hash takes everything
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// write puts a bundle in the place of another at main: what is included first, and the main
// file, which decides what is included, last. Each file is replaced at once; a crash in
// between is what the file of the trial is for.
func (b bundle) write(main string, before bundle) error {
	mode := fs.FileMode(0o640)
	if info, err := os.Stat(main); err == nil {
		mode = info.Mode().Perm()
	}
	var names []string
	for _, f := range b.Included {
		names = append(names, f.Name)
		if err := replaceFile(resolved(place(main, f.Name)), []byte(f.Text), mode); err != nil {
			return err
		}
	}
	if err := replaceFile(resolved(main), []byte(b.Main), mode); err != nil {
		return err
	}
	for _, f := range before.Included {
		if !slices.Contains(names, f.Name) {
			if err := os.Remove(place(main, f.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// resolved is the file that a name leads to, so that a link stays one.
func resolved(name string) string {
	if to, err := filepath.EvalSymlinks(name); err == nil {
		return to
	}
	return name
}

// writable reports why no file could be replaced in the directory of main.
func writable(main string) error {
	if err := takes(filepath.Dir(resolved(main))); err != nil {
		return fmt.Errorf("the configuration cannot be written on this node: %w", err)
	}
	return nil
}

// writable reports why no generation could be kept.
func (d generations) writable() error {
	err := os.MkdirAll(string(d), 0o750)
	if err == nil {
		err = takes(string(d))
	}
	if err != nil {
		return fmt.Errorf("what to put back cannot be kept on this node: %w", err)
	}
	return nil
}

// takes reports why a directory takes no file.
func takes(dir string) error {
	f, err := os.CreateTemp(dir, ".proxyd-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// putBack ends a trial that was under way when this node ended, before its configuration is
// read: what was there before is put back. If the cluster has meanwhile taken the
// generation to stay, it is completed once that is heard.
func putBack(main string) error {
	d := generationsIn(config.StateDir(main))
	t, err := d.loadTrial()
	if t == nil {
		return err
	}
	g, ok := d.find(func(g generation) bool { return g.ID == t.ID })
	if ok && g.State == applied {
		return d.endTrial() // only that was left to do
	}
	if err := t.Before.write(main, t.After); err != nil {
		return fmt.Errorf("put back the configuration before generation %d: %w", t.Number, err)
	}
	if ok {
		g.State, g.Why = rolledBack, "the node ended while it was on trial"
		if err := d.save(g); err != nil {
			return err
		}
	}
	return d.endTrial()
}

// Generations implements control.Operator.
func (d generations) list(live string) []control.Generation {
	out := []control.Generation{}
	for _, g := range d.all() {
		out = append(out, control.Generation{Number: g.Number, From: g.From, Time: g.Time, By: g.By, On: g.On, Comment: g.Comment, Config: g.Config,
			State: g.State, Why: g.Why, Current: g.Written == live && g.State != rolledBack})
	}
	// Of several with one text the latest is the one in force.
	seen := false
	for i := range slices.Backward(out) {
		out[i].Current = out[i].Current && !seen
		seen = seen || out[i].Current
	}
	return out
}

// shortText is the first line of a text, for a log.
func shortText(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
