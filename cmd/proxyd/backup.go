package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"proxyd/internal/backup"
	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/ha/keyring"
)

// maxBackup is how many bytes of generations go into a backup; older ones are left out.
const maxBackup = 16 << 20

// Backup implements control.Operator: all of this node that another can be made of, but for
// the secrets themselves.
func (n *node) Backup(context.Context) (*control.Backup, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.config
	b := &control.Backup{Cluster: c.Cluster.Name, Node: c.Node.Name, Version: version, Time: time.Now().UTC().Truncate(time.Second), Config: c.Hash,
		Main: n.file, State: c.Node.State, Secrets: []string{}, Warnings: []string{}}
	if main, err := filepath.Abs(n.file); err == nil {
		b.Main = main
	}
	if n.cluster != nil && len(c.Cluster.Join) > 0 {
		b.Address = string(n.cluster.node.Self)
	}
	if c.Cluster.SecretRef != "" {
		b.Secrets = append(b.Secrets, c.Cluster.SecretRef)
	}
	secret := func(files ...string) {
		for _, name := range files {
			if ref := "file:" + name; name != "" && !slices.Contains(b.Secrets, ref) {
				b.Secrets = append(b.Secrets, ref)
			}
		}
	}
	for _, ref := range c.ACMESecrets() {
		if !slices.Contains(b.Secrets, ref) {
			b.Secrets = append(b.Secrets, ref)
		}
	}
	for _, name := range []string{n.acme.shelf.file(), n.acme.shelf.key()} {
		if _, err := os.Stat(name); err == nil {
			b.Secrets = append(b.Secrets, "file:"+name)
		}
	}
	for _, x := range c.Cert {
		secret(x.Cert, x.Key)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Pool)) {
		if t := c.Pool[name].TLS; t != nil && !t.Off {
			secret(t.CA, t.Cert, t.Key)
		}
	}
	if ring, err := filepath.Abs(filepath.Join(c.Node.State, keyring.File)); err == nil {
		if _, err := os.Stat(ring); err == nil { // the keys were rotated
			b.Secrets = append(b.Secrets, "file:"+ring)
		}
	}
	add := func(name string, data []byte) { b.Files = append(b.Files, control.BackupFile{Name: name, Data: data}) }
	live, err := onDisk(n.file)
	if err != nil {
		return nil, err
	}
	add(backup.ConfigDir+"/"+filepath.Base(n.file), []byte(live.Main))
	for _, f := range live.Included {
		if filepath.IsAbs(f.Name) {
			b.Warnings = append(b.Warnings, f.Name+" is elsewhere than the main file, and not in the backup")
			continue
		}
		add(backup.ConfigDir+"/"+filepath.ToSlash(f.Name), []byte(f.Text))
	}
	for _, name := range []string{config.ChangesFile, "overrides.json", "term"} {
		text, err := os.ReadFile(filepath.Join(c.Node.State, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		add(backup.StateDir+"/"+name, text)
	}
	shared, err := json.MarshalIndent(n.shared.entries(standingKind, pauseKind, generationKind, changeKind), "", "  ")
	if err != nil {
		return nil, err
	}
	add(backup.StateDir+"/"+standingsFile, append(shared, '\n'))
	size := 0
	for _, g := range slices.Backward(n.generations().all()) {
		text, err := json.MarshalIndent(g, "", " ")
		if err != nil {
			return nil, err
		}
		if size += len(text); size > maxBackup {
			b.Warnings = append(b.Warnings, "the older generations are too large, and not in the backup")
			break
		}
		add(backup.StateDir+"/generations/"+filepath.Base(n.generations().file(g.Number)), text)
	}
	return b, nil
}
