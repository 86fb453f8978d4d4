package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"proxyd/internal/config"
	"proxyd/internal/control"
)

// Edit implements control.Operator: the change is checked, in force and on the disk when
// it returns, or none of these.
func (n *node) Edit(_ context.Context, e control.Edit) (*control.Reload, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text, next, err := n.texts().Edit(editOf(e))
	if errors.Is(err, config.ErrNothing) {
		return nil, control.Refuse(err.Error())
	} else if err != nil {
		return nil, control.Invalid(err.Error())
	}
	c, r := n.compare(next)
	if e.DryRun {
		return r, nil
	}
	before := n.config
	if err := n.take(c); err != nil {
		return nil, control.Invalid(err.Error())
	}
	if err := replaceFile(n.changesFile(), text, 0o640); err != nil {
		if back := n.take(before); back != nil {
			n.log.Error("the previous configuration could not be put back", "error", back)
		}
		return nil, control.Refuse(fmt.Sprintf("the change cannot be kept over a restart, so it is undone: %v", err))
	}
	n.tell("hactl", r, nil)
	return r, nil
}

// Changes implements control.Operator.
func (n *node) Changes(context.Context) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text, err := os.ReadFile(n.changesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// changesFile has what was changed at run time. n.mu is held.
func (n *node) changesFile() string { return filepath.Join(n.config.Node.State, config.ChangesFile) }

func editOf(e control.Edit) config.Edit {
	out := config.Edit{Clear: e.Clear}
	if e.Put != nil {
		out.Put = &config.Snippet{Name: e.Put.Name, Text: e.Put.Text}
	}
	if s := e.Add; s != nil {
		out.Add = &config.NewServer{Pool: s.Pool, Addr: s.Addr, Weight: s.Weight, Backup: s.Backup}
	}
	if t := e.Remove; t != nil {
		out.Remove = &config.Thing{Kind: t.Kind, Name: t.Name}
	}
	if t := e.Drop; t != nil {
		out.Drop = &config.Thing{Kind: t.Kind, Name: t.Name}
	}
	return out
}
