// Package drills holds what can be done to a cluster and what is promised of it: a folder
// for each drill, with a script that does it (run) and the promise (drill.toml).
//
// The scripts speak to the hosts by one command, `on HOST VERB`. The lab gives it to them
// in network namespaces, deploy/vagrant on virtual machines; README.md lists the verbs.
package drills

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/BurntSushi/toml"
)

//go:embed */run */drill.toml
var files embed.FS

// A Drill is a folder.
type Drill struct {
	Key string `toml:"-"` // name of the folder

	Name    string        `toml:"name"`
	About   string        `toml:"about"`
	Moves   bool          `toml:"moves"` // the VIP goes to another node
	Lasts   time.Duration `toml:"lasts"` // until it is undone; 0: until service has settled
	Promise Promise       `toml:"promise"`
	Undo    *Undo         `toml:"undo"` // nil: there is nothing to undo

	Script []byte `toml:"-"` // `run strike` does it, `run undo` undoes it
}

// A Promise is what clients may expect of an event.
type Promise struct {
	Outage  time.Duration  `toml:"outage"`  // without service, the median of many
	Failed  *int           `toml:"failed"`  // requests on connections of their own; nil: no promise
	Two     *time.Duration `toml:"two"`     // in which two hosts answer for the VIP; nil: no promise
	Changes *int           `toml:"changes"` // times that another host answers for the VIP than before; nil: no promise
}

// Undo is how a drill is undone.
type Undo struct {
	Name string `toml:"name"`
	Promise
}

// All returns every drill, by key.
func All() ([]Drill, error) {
	folders, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, fmt.Errorf("list the drills: %w", err)
	}
	var all []Drill
	for _, f := range folders {
		text, err := files.ReadFile(path.Join(f.Name(), "drill.toml"))
		if err != nil {
			return nil, fmt.Errorf("drill %s: %w", f.Name(), err)
		}
		d, err := Parse(f.Name(), string(text))
		if err != nil {
			return nil, err
		}
		if d.Script, err = files.ReadFile(path.Join(f.Name(), "run")); err != nil {
			return nil, fmt.Errorf("drill %s: %w", f.Name(), err)
		}
		all = append(all, d)
	}
	return all, nil
}

// Parse reads the drill.toml of the drill with a key. A key of the file that means nothing
// is an error.
func Parse(key, text string) (Drill, error) {
	d := Drill{Key: key}
	meta, err := toml.Decode(text, &d)
	switch unknown := meta.Undecoded(); {
	case err != nil:
		return d, fmt.Errorf("drill %s: %w", key, err)
	case len(unknown) > 0:
		return d, fmt.Errorf("drill %s: unknown key %q", key, unknown[0].String())
	case d.Name == "" || d.About == "" || d.Promise.Outage == 0:
		return d, fmt.Errorf("drill %s: it needs name, about and promise.outage", key)
	case d.Undo != nil && (d.Undo.Name == "" || d.Undo.Outage == 0):
		return d, fmt.Errorf("drill %s: undo needs name and outage", key)
	}
	return d, nil
}
