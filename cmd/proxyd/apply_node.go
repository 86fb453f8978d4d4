package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/control"
)

// What the node that applies a configuration asks each node, itself too. Every question has
// the id of the apply, and each renews the lock that the first one took.
const (
	askLock     = "apply.lock"
	askCheck    = "apply.check"
	askActivate = "apply.activate"
	askLook     = "apply.look"
	askCommit   = "apply.commit"
	askUndo     = "apply.undo" // the trial, and the lock
)

// lockTime is how long a node waits to hear of an apply that it takes part in. Then it puts
// back what was there before, unless the cluster has taken the generation to stay.
const lockTime = 10 * time.Second

// applyQuestion is the body of all of these.
type applyQuestion struct {
	ID         string           `json:"id"`
	On         string           `json:"on"`
	By         string           `json:"by"`
	File       string           `json:"file,omitempty"` // what the operator called it
	Bundle     *bundle          `json:"bundle,omitempty"`
	Voters     []netip.AddrPort `json:"voters,omitempty"` // instead of a bundle: the node's own with another cluster.join
	Generation generation       `json:"generation,omitzero"`
	Why        string           `json:"why,omitempty"`
}

// locked is the answer to askLock.
type locked struct {
	Highest    uint64 `json:"highest"`    // number of a generation
	Unrecorded bool   `json:"unrecorded"` // what is in force is none of them
}

// checked is the answer to askCheck and askActivate.
type checked struct {
	Reload    control.Reload `json:"reload"`
	Recluster bool           `json:"recluster"` // the cluster part starts anew, so VIPs may move
}

// looked is the answer to askLook.
type looked struct {
	Health health `json:"health"`
	State  string `json:"state"` // of the generation here; "" if there is none
	Why    string `json:"why,omitempty"`
}

// An applying is this node's side of an apply. node.mu guards it.
type applying struct {
	id    string    // of the apply that this node is locked for; "" none
	by    string    // who asked for it, and where
	until time.Time // the end of the lock
	trial *trial    // nil: none
	tried string    // the apply that was last tried to be completed
}

// generationKind is the kind of the shared entry that says which generation the cluster has
// taken to stay.
const (
	generationKind = "generation"
	generationKey  = "current"
)

// serveApply does what the node that applies asks.
func (n *node) serveApply(what string, q applyQuestion) (any, error) {
	if q.ID == "" {
		return nil, control.Refuse("an apply without an id")
	}
	if what == askLook { // without the lock: it must be answered in the midst of a reload
		return n.applyLook(q), nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	a := &n.apply
	if a.id != "" && a.id != q.ID && (a.trial != nil || time.Now().Before(a.until)) {
		return nil, control.Refuse(fmt.Sprintf("a configuration is being applied already, by %s; one at a time", a.by))
	}
	if what == askLock {
		a.id, a.by = q.ID, q.By+" on "+q.On
	}
	if a.id != q.ID {
		if what == askUndo || what == askCommit {
			return struct{}{}, n.applied(q.ID, what == askCommit)
		}
		return nil, control.Refuse("this node has waited too long for the apply, and put back what was there")
	}
	a.until = time.Now().Add(lockTime)
	switch what {
	case askLock:
		return n.applyLock()
	case askCheck:
		return n.applyCheck(q)
	case askActivate:
		return n.applyActivate(q)
	case askCommit:
		return struct{}{}, n.commitTrial()
	case askUndo:
		err := n.undoTrial(q.Why)
		a.id = ""
		return struct{}{}, err
	}
	return nil, control.Refuse(fmt.Sprintf("this node does not know %q", what))
}

// applied reports whether the end of an apply that this node is not locked for any more is
// what is asked for. n.mu is held.
func (n *node) applied(id string, wanted bool) error {
	g, ok := n.generations().find(func(g generation) bool { return g.ID == id && g.State != found })
	if is := ok && g.State == applied; is != wanted {
		return control.Refuse(fmt.Sprintf("the generation is %q here", g.State))
	}
	return nil
}

// generations are those of this node. n.mu is held.
func (n *node) generations() generations { return generationsIn(n.config.Node.State) }

func (n *node) applyLock() (locked, error) {
	d := n.generations()
	var l locked
	live, err := onDisk(n.file)
	if err != nil {
		return l, control.Refuse(err.Error())
	}
	digest := live.digest()
	l.Unrecorded, l.Highest = true, d.highest()
	for _, g := range d.all() {
		if g.Written == digest {
			l.Unrecorded = false
		}
	}
	return l, errors.Join(writable(n.file), d.writable())
}

// applyCheck tells what the configuration would change here.
func (n *node) applyCheck(q applyQuestion) (checked, error) {
	b, err := n.bundleOf(q)
	if err != nil {
		return checked{}, err
	}
	if q.Bundle != nil {
		// Errors have the places in what the operator wrote.
		t := b.texts(q.File)
		t.Own, t.State = n.file, n.config.Node.State
		if _, err := config.Load(t); err != nil {
			return checked{}, control.Invalid(err.Error())
		}
	}
	// What is written must say the same.
	after, before, err := n.own(b)
	if err != nil {
		return checked{}, err
	}
	t := after.texts(n.file)
	t.State = n.config.Node.State
	next, err := config.Load(t)
	if err != nil {
		return checked{}, control.Invalid(err.Error())
	}
	c, r := n.compare(next)
	if err := n.fitsHere(c); err != nil {
		return checked{}, control.Invalid(err.Error())
	}
	r.Changed = r.Changed || after.digest() != before.digest()
	return checked{Reload: *r, Recluster: n.cluster != nil && !n.cluster.live(c) && !n.cluster.revotes(c)}, nil
}

// bundleOf is what an apply gives this node. n.mu is held.
func (n *node) bundleOf(q applyQuestion) (bundle, error) {
	if q.Bundle != nil {
		return *q.Bundle, nil
	}
	b, err := onDisk(n.file)
	if err != nil {
		return b, control.Refuse(err.Error())
	}
	text, err := config.SetVoters([]byte(b.Main), q.Voters)
	if err == nil {
		b.Main = string(text)
		return b, nil
	}
	for i, f := range b.Included {
		if text, more := config.SetVoters([]byte(f.Text), q.Voters); more == nil {
			b.Included[i].Text = string(text)
			return b, nil
		}
	}
	return b, control.Invalid(fmt.Sprintf("%s: %v", n.file, err))
}

// fitsHere reports why c cannot be in force on this host. n.mu is held.
func (n *node) fitsHere(c *config.Config) error {
	return misfit(c, append(outOfReach(c), misplaced(c)...))
}

// misfit is what does not fit this host as one error, nil if all does.
func misfit(c *config.Config, errs []error) error {
	for i, err := range errs {
		errs[i] = fmt.Errorf("%s: %w", c.Name, err)
	}
	return errors.Join(errs...)
}

// own returns what a bundle is on this node's disk, and what is there now. n.mu is held.
func (n *node) own(b bundle) (after, before bundle, err error) {
	if before, err = onDisk(n.file); err != nil {
		return after, before, control.Refuse(err.Error())
	}
	text, err := config.Splice([]byte(b.Main), []byte(before.Main))
	if err != nil {
		return after, before, control.Invalid(fmt.Sprintf("%s: %v", n.file, err))
	}
	return bundle{Main: string(text), Included: b.Included}, before, nil
}

// applyActivate puts the configuration in force, on trial.
func (n *node) applyActivate(q applyQuestion) (checked, error) {
	if t := n.apply.trial; t != nil && t.ID == q.ID {
		return checked{Reload: control.Reload{Config: n.config.Hash}}, nil // asked again, because the answer was lost
	}
	g := q.Generation
	b, err := n.bundleOf(q)
	if err != nil {
		return checked{}, err
	}
	g.Bundle = b
	r, err := n.beginTrial(g)
	if err != nil {
		return checked{}, err
	}
	return checked{Reload: *r}, nil
}

// beginTrial puts a generation in force and on the disk, and notes what to put back. On
// error all is as before. n.mu is held.
func (n *node) beginTrial(g generation) (*control.Reload, error) {
	d := n.generations()
	after, before, err := n.own(g.Bundle)
	if err != nil {
		return nil, err
	}
	if g.From != 0 {
		after.Main = d.asFound(after.Main)
	}
	t := after.texts(n.file)
	t.State = n.config.Node.State
	next, err := config.Load(t)
	if err != nil {
		return nil, control.Invalid(err.Error())
	}
	c, r := n.compare(next)
	g.Config, g.State, g.Written, g.Before = c.Hash, onTrial, after.digest(), before.digest()
	if _, known := d.find(func(old generation) bool { return old.Written == g.Before }); !known && g.Number > 1 {
		was := generation{Number: g.Number - 1, ID: g.ID + " before", Time: g.Time, On: n.config.Node.Name, Comment: "as found", Config: n.config.Hash,
			State: found, Bundle: before, Written: g.Before}
		if err := d.save(was); err != nil {
			return nil, control.Refuse(err.Error())
		}
	}
	now := &trial{ID: g.ID, Number: g.Number, Before: before, After: after, config: n.config}
	if err := errors.Join(d.save(g), d.saveTrial(now)); err != nil {
		return nil, control.Refuse(fmt.Sprintf("what to put back cannot be kept: %v", err))
	}
	giveUp := func(err error, why string) error {
		g.State, g.Why = rolledBack, err.Error()
		if more := errors.Join(d.save(g), d.endTrial()); more != nil {
			n.log.Error("state directory", "error", more)
		}
		return control.Refuse(why + err.Error())
	}
	if err := n.take(c); err != nil {
		return nil, giveUp(err, "")
	}
	if err := after.write(n.file, before); err != nil {
		if more := errors.Join(before.write(n.file, after), n.takeBack(now.config)); more != nil {
			n.log.Error("the previous configuration could not be put back", "error", more)
		}
		return nil, giveUp(err, "the configuration cannot be written, so it is undone: ")
	}
	n.apply.trial = now
	n.tried = digest(n.texts())
	n.log.Info("generation on trial", "generation", g.Number, "by", g.By, "on", g.On, "config", c.Hash, "changes", len(r.Changes), "first", r.Changes[:min(len(r.Changes), maxLogged)])
	return r, nil
}

// commitTrial lets the generation on trial stay. n.mu is held.
func (n *node) commitTrial() error {
	t := n.apply.trial
	if t == nil {
		return n.applied(n.apply.id, true)
	}
	d := n.generations()
	g, ok := d.find(func(g generation) bool { return g.ID == t.ID })
	if !ok {
		return control.Refuse(fmt.Sprintf("generation %d is not kept any more", t.Number))
	}
	g.State = applied
	if err := d.save(g); err != nil {
		return err // it is asked again, or found out by the shared state
	}
	n.apply = applying{tried: t.ID}
	if err := d.endTrial(); err != nil {
		n.log.Error("state directory", "error", err)
	}
	n.log.Info("generation applied", "generation", g.Number, "config", g.Config)
	return nil
}

// undoTrial puts back what was in force before the generation on trial. n.mu is held.
func (n *node) undoTrial(why string) error {
	t := n.apply.trial
	if t == nil {
		return nil
	}
	d := n.generations()
	n.apply.trial = nil
	err := t.Before.write(n.file, t.After)
	if err == nil {
		n.tried = digest(n.texts())
		err = n.takeBack(t.config)
	}
	if g, ok := d.find(func(g generation) bool { return g.ID == t.ID && g.State == onTrial }); ok {
		g.State, g.Why = rolledBack, why
		err = errors.Join(err, d.save(g))
	}
	if err != nil {
		// The file of the trial stays: the next start puts back what could not be now.
		n.log.Error("generation could not be rolled back wholly", "generation", t.Number, "error", err)
		return fmt.Errorf("generation %d could not be rolled back wholly: %w", t.Number, err)
	}
	n.log.Warn("generation rolled back", "generation", t.Number, "why", why, "config", n.config.Hash)
	return d.endTrial()
}

func (n *node) applyLook(q applyQuestion) looked {
	l := looked{Health: n.health()}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.apply.id == q.ID {
		n.apply.until = time.Now().Add(lockTime)
	}
	if g, ok := n.generations().find(func(g generation) bool { return g.ID == q.ID }); ok {
		l.State, l.Why = g.State, g.Why
	}
	return l
}

// committed is what the cluster has taken to stay, as the shared state has it.
type committed struct {
	ID      string    `json:"id"`
	Number  uint64    `json:"number"`
	Config  string    `json:"config"`
	Time    time.Time `json:"time"`
	By      string    `json:"by"`
	Comment string    `json:"comment,omitempty"`
}

// committed returns the latest that is known here.
func (n *node) committed() (committed, bool) {
	var c committed
	e, ok := n.shared.get(generationKind, generationKey)
	if !ok || json.Unmarshal(e.Value, &c) != nil {
		return committed{}, false
	}
	return c, true
}

// followApply ends what no other node ends, until ctx is over: a trial of which nothing is
// heard any more, by the rule of the shared state; and one that this node gave up though the
// cluster took it to stay.
func (n *node) followApply(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(clock.Next(time.Second)):
		}
		n.settleApply(time.Now())
	}
}

func (n *node) settleApply(now time.Time) {
	c, ok := n.committed()
	n.mu.Lock()
	defer n.mu.Unlock()
	a := &n.apply
	switch {
	case a.trial != nil && ok && c.ID == a.trial.ID:
		if err := n.commitTrial(); err != nil {
			n.log.Error("generation", "error", err)
		}
	case a.trial != nil && now.After(a.until):
		_ = n.undoTrial("nothing more was heard of the apply by " + a.by) // it is logged
		n.apply.id = ""
	case a.trial == nil && ok && c.ID != a.tried && (a.id == "" || now.After(a.until)):
		a.tried = c.ID
		g, ok := n.generations().find(func(g generation) bool { return g.ID == c.ID })
		if !ok || g.State != rolledBack {
			return
		}
		if live, err := onDisk(n.file); err != nil || live.digest() != g.Before {
			n.log.Warn("the cluster has applied a generation that this node gave up; its file was changed since, so it stays as it is", "generation", g.Number)
			return
		}
		if _, err := n.beginTrial(g); err != nil {
			n.log.Error("complete a generation that the cluster has applied", "generation", g.Number, "error", err)
		} else if err := n.commitTrial(); err != nil {
			n.log.Error("generation", "error", err)
		}
	}
}
