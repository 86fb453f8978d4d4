package main

import (
	"context"
	"fmt"
	"os"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/history"
)

// reload reads the file again and takes it into use, whole or not at all.
func (n *node) reload() (*control.Reload, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tried = digest(n.texts())
	next, err := config.Load(n.texts())
	if err != nil {
		n.plane.NoteRejected()
		return nil, control.Invalid(err.Error())
	}
	c, r := n.compare(next)
	if err := n.take(c); err != nil {
		return nil, control.Invalid(err.Error())
	}
	return r, nil
}

// texts are those of which this node's configuration is made. n.mu is held.
func (n *node) texts() config.Texts {
	return config.Texts{Main: n.file, State: n.config.Node.State}
}

// tell logs how a reload went that cause asked for.
func (n *node) tell(cause string, r *control.Reload, err error) {
	if err != nil {
		n.record.note(history.Entry{Kind: history.Config, Reason: cause, Text: "refused: " + err.Error()})
		n.log.Error("reload refused, the old configuration keeps serving", "asked", cause, "error", err)
		return
	}
	for _, w := range r.Warnings {
		n.log.Warn("configuration", "warning", w)
	}
	n.log.Info("reloaded", "asked", cause, "config", r.Config, "changes", len(r.Changes), "first", r.Changes[:min(len(r.Changes), maxLogged)])
}

// maxLogged bounds how many changes of one reload are in the log line of it.
const maxLogged = 10

// compare returns what of a new configuration can be put in force now, and what that
// changes. n.mu is held.
func (n *node) compare(next *config.Config) (*config.Config, *control.Reload) {
	c, fixed := config.Fixed(n.config, next)
	r := &control.Reload{Config: c.Hash, Changes: config.Changes(n.config, c), Warnings: []string{}}
	r.Changed = len(r.Changes) > 0
	if r.Changes == nil {
		r.Changes = []string{}
	}
	r.Binary = replaced("/proc/self/exe", n.binary)
	for _, w := range append(fixed, next.Warnings...) {
		r.Warnings = append(r.Warnings, w.String())
	}
	return c, r
}

// replaced reports whether another program lies at the path from which the running one, to
// which exe leads, was started.
func replaced(exe, path string) bool {
	runs, err := os.Stat(exe)
	if err != nil {
		return false
	}
	lies, err := os.Stat(path)
	return err == nil && !os.SameFile(runs, lies)
}

// take puts c in force. On error all is as before. n.mu is held.
func (n *node) take(c *config.Config) error { return n.takeBy(n.plane.Apply, c) }

// takeBack puts a configuration in force that was in force before. n.mu is held.
func (n *node) takeBack(c *config.Config) error { return n.takeBy(n.plane.RollBack, c) }

func (n *node) takeBy(apply func(*config.Config) error, c *config.Config) error {
	if n.succeeding {
		return errSucceeding
	}
	settle, err := n.admin.move(c.Admin)
	if err != nil {
		n.plane.NoteRejected()
		return err
	}
	if err := apply(c); err != nil {
		settle(false)
		return err
	}
	if err := n.recluster(c); err != nil {
		settle(false)
		// What was asked for is not there (an interface, a capability): all is as before.
		if back := n.plane.RollBack(n.config); back != nil {
			n.log.Error("the previous configuration could not be put back", "error", back)
		}
		return err
	}
	settle(true)
	if c.Hash != n.config.Hash {
		n.record.note(history.Entry{Kind: history.Config, Text: fmt.Sprintf("%s is in force in place of %s", c.Hash, n.config.Hash)})
	}
	n.level.Set(level(c.Log.Level))
	n.config = c
	n.restrain()
	n.notify.Set(receivers(c))
	n.useACME(c)
	n.watch()
	n.tracks.Use(c.Track)
	return nil
}

// Diff implements control.Operator.
func (n *node) Diff(_ context.Context, f control.File) (*control.Reload, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.texts()
	if f.Text != "" {
		t.Main, t.Text = f.Name, []byte(f.Text)
	}
	c, err := config.Load(t)
	if err != nil {
		return nil, control.Invalid(err.Error())
	}
	_, r := n.compare(c)
	return r, nil
}

// recluster makes the cluster part say what c says. VIPs come, go and change while the rest
// goes on. Where the voters are others, the part that counts them goes on from where the one
// before is. Where the cluster itself is another, the part leaves as it does at
// the end, so that another node holds the addresses meanwhile, and starts anew. n.mu is
// held.
func (n *node) recluster(c *config.Config) error {
	if n.cluster == nil && len(c.VIP) == 0 && len(c.Cluster.Join) == 0 {
		return nil
	}
	// Seen now, it costs nothing; seen after leaving, the addresses have moved for nothing.
	if err := misfit(c, outOfReach(c)); err != nil {
		return err
	}
	if n.cluster != nil && n.cluster.live(c) {
		return n.cluster.change(n, c)
	}
	if err := misfit(c, misplaced(c)); err != nil {
		return err
	}
	old := n.cluster
	if old != nil {
		if err := old.mayVote(c); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		if old.revotes(c) {
			return n.revote(c)
		}
		n.log.Info("the cluster part starts anew with other settings: what it holds is handed over first")
		ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
		old.leave(ctx)
		cancel()
		old.stop()
	}
	next, err := startCluster(context.Background(), n, c, nil)
	if err != nil && old != nil {
		if next, back := startCluster(context.Background(), n, n.config, nil); back == nil {
			n.cluster = next
			n.standNow()
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
	n.standNow()
	return nil
}
