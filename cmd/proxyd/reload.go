package main

import (
	"context"
	"fmt"

	"proxyd/internal/config"
	"proxyd/internal/control"
)

// reload reads the file again and takes it into use, whole or not at all.
func (n *node) reload() (*control.Reload, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	read, err := load(n.file)
	if err != nil {
		n.plane.NoteRejected()
		return nil, control.Invalid(err.Error())
	}
	c, fixed := config.Fixed(n.config, read)
	r := &control.Reload{Config: c.Hash, Changed: len(config.Changes(n.config, c)) > 0, Warnings: []string{}}
	for _, w := range fixed {
		r.Warnings = append(r.Warnings, w.String())
	}
	if err := n.plane.Apply(c); err != nil {
		return nil, control.Invalid(err.Error())
	}
	if err := n.recluster(c); err != nil {
		// What was asked for is not there (an interface, a capability): all is as before.
		n.plane.NoteRejected()
		if back := n.plane.Apply(n.config); back != nil {
			n.log.Error("the previous configuration could not be put back", "error", back)
		}
		return nil, control.Invalid(err.Error())
	}
	n.level.Set(level(c.Log.Level))
	n.config = c
	return r, nil
}

// recluster makes the cluster part say what c says. A changed part leaves as it does at
// the end, so that another node holds the addresses meanwhile, and starts anew. n.mu is
// held.
func (n *node) recluster(c *config.Config) error {
	if n.cluster != nil && n.cluster.same(c) {
		n.cluster.node.SetConfig(c.Hash)
		return nil
	}
	if n.cluster == nil && len(c.VIP) == 0 && len(c.Cluster.Join) == 0 {
		return nil
	}
	for _, v := range vipsOf(c) {
		// Seen now, it costs nothing; seen after leaving, the addresses have moved for nothing.
		if err := inReach(v); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	old := n.cluster
	if old != nil {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
		old.leave(ctx)
		cancel()
		old.stop()
	}
	next, err := startCluster(context.Background(), n, c)
	if err != nil && old != nil {
		if next, back := startCluster(context.Background(), n, n.config); back == nil {
			n.cluster = next
		} else {
			n.cluster = nil
			n.log.Error("the previous cluster part could not be started again", "error", back)
		}
		return err
	}
	if err != nil {
		return err
	}
	n.cluster = next
	return nil
}
