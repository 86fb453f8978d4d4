package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
	"proxyd/internal/history"
)

const (
	lookEvery = 250 * time.Millisecond // how often nodes are looked at while one is on trial
	// missingTime is how long a node may not answer before it is missing. Its cluster part
	// may start anew meanwhile.
	missingTime = 8 * time.Second
	// badLooks is how many looks in a row must find a server down that was up before.
	badLooks = 4
	// fewRequests is below how many requests the share of failed ones says nothing.
	fewRequests = 20
	// moreFailures is by how much that share may grow.
	moreFailures = 0.05
	// peerAsk bounds one question of an apply. A reload that restarts the cluster part takes
	// seconds.
	peerAsk = 20 * time.Second
)

// A target is one node of an apply.
type target struct {
	id     election.ID
	name   string
	holder bool
	before health
	answer checked
	taken  bool          // it takes part in this apply and no other
	active bool          // the generation is in force there, as far as is known
	took   time.Duration // until it was
}

// An application is one apply on its way, on the node where it was asked for.
type application struct {
	n          *node
	id         string
	request    control.Apply
	bundle     *bundle
	voters     []netip.AddrPort // instead of a bundle: each node's own with another cluster.join
	from       uint64           // of a rollback
	targets    []*target
	generation generation
	warnings   []string
	vips       map[string][]string // holders by VIP before; nil where they may change
}

// Apply implements control.Operator.
func (n *node) Apply(ctx context.Context, a control.Apply) (*control.Applied, error) {
	b := bundle{Main: a.File.Text}
	for _, f := range a.Included {
		b.Included = append(b.Included, control.File{Name: relative(a.File.Name, f.Name), Text: f.Text})
	}
	return n.applyBundle(ctx, a, b, 0)
}

// Rollback implements control.Operator.
func (n *node) Rollback(ctx context.Context, w control.Rollback) (*control.Applied, error) {
	n.mu.Lock()
	d := n.generations()
	n.mu.Unlock()
	last, ok := d.current()
	if !ok && w.Generation == 0 {
		return nil, control.Refuse("nothing was applied yet; `hactl generations` lists what there is")
	}
	before := last.Number
	if last.From != 0 {
		before = last.From
	}
	g, ok := d.find(func(g generation) bool {
		if w.Generation != 0 {
			return g.Number == w.Generation
		}
		return g.Number < before && (g.State == applied || g.State == found)
	})
	if !ok {
		return nil, control.Refuse("there is no such generation; `hactl generations` lists what there is")
	}
	from := g.Number
	if g.From != 0 {
		from = g.From
	}
	a := control.Apply{File: control.File{Name: n.file, Text: g.Bundle.Main}, CanaryMS: w.CanaryMS, DryRun: w.DryRun, By: w.By, Without: w.Without,
		Comment: fmt.Sprintf("rollback to generation %d", g.Number)}
	return n.applyBundle(ctx, a, g.Bundle, from)
}

// Generations implements control.Operator.
func (n *node) Generations(context.Context) ([]control.Generation, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	live, err := onDisk(n.file)
	if err != nil {
		return nil, err
	}
	return n.generations().list(live.digest()), nil
}

func (n *node) applyBundle(ctx context.Context, a control.Apply, b bundle, from uint64) (*control.Applied, error) {
	return n.applyAll(ctx, &application{request: a, bundle: &b, from: from})
}

// applyAll gives p its nodes and runs it.
func (n *node) applyAll(ctx context.Context, p *application) (*control.Applied, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	p.n, p.id = n, hex.EncodeToString(random[:])
	if err := p.findTargets(ctx); err != nil {
		return nil, err
	}
	r, err := p.run(ctx)
	if p.request.DryRun {
		return r, err
	}
	switch {
	case err == nil:
		n.applies.WithLabelValues("ok").Inc()
	case p.begun():
		n.applies.WithLabelValues("rolled_back").Inc()
	default:
		n.applies.WithLabelValues("refused").Inc()
	}
	return r, err
}

// run does all of it. On error nothing is changed anywhere, or what was is put back.
func (p *application) run(ctx context.Context) (*control.Applied, error) {
	defer p.unlock()
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	if p.request.DryRun {
		return p.result(), nil
	}
	p.n.log.Info("applying a configuration", "by", p.request.By, "generation", p.generation.Number, "nodes", len(p.targets), "comment", p.request.Comment)
	p.n.record.note(history.Entry{Kind: history.Config, Reason: "apply", Text: fmt.Sprintf("generation %d is applied to %d nodes, asked for by %s%s", p.generation.Number, len(p.targets), p.request.By, inBrackets(p.request.Comment))})
	if err := p.activate(ctx); err != nil {
		undone := p.undo(err)
		p.n.record.note(history.Entry{Kind: history.Config, Reason: "apply", Text: fmt.Sprintf("generation %d: %s; %s", p.generation.Number, shortText(err.Error()), undone)})
		p.n.log.Error("apply refused", "generation", p.generation.Number, "error", err, "rolled_back", undone)
		if undone != "" {
			err = fmt.Errorf("%w; %s", err, undone)
		}
		if errors.Is(err, control.ErrInvalid) {
			return nil, control.Invalid(err.Error())
		}
		return nil, control.Refuse(err.Error())
	}
	warnings, err := p.commit(ctx)
	if err != nil {
		return nil, control.Refuse(fmt.Sprintf("%v; %s", err, p.undo(err)))
	}
	r := p.result()
	r.Warnings = append(r.Warnings, warnings...)
	return r, nil
}

// findTargets finds the nodes, those that hold nothing first.
func (p *application) findTargets(ctx context.Context) error {
	k, _, _ := p.n.part()
	if k == nil {
		p.targets = []*target{{name: p.n.nodeName()}}
		return nil
	}
	v, err := k.node.Status(ctx)
	if err != nil {
		return err
	}
	p.vips = holders(v)
	known := map[string]bool{}
	for _, nv := range v.Nodes {
		known[nv.Name], known[string(nv.ID)] = true, true
		if slices.Contains(p.request.Without, nv.Name) || slices.Contains(p.request.Without, string(nv.ID)) {
			continue
		}
		if nv.Witness && p.bundle != nil {
			p.warnings = append(p.warnings, fmt.Sprintf("%s is a witness and keeps a file of its own", nv.Name))
			continue
		}
		if nv.State == ha.Unheard {
			return control.Refuse(fmt.Sprintf("%s is not heard (%s), and every node must take part; --without %s leaves it out", nv.Name, nv.Reason, nv.Name))
		}
		t := &target{id: nv.ID, name: nv.Name}
		for _, names := range p.vips {
			t.holder = t.holder || slices.Contains(names, nv.Name)
		}
		p.targets = append(p.targets, t)
	}
	for _, name := range p.request.Without {
		if !known[name] {
			return control.Refuse(fmt.Sprintf("there is no node %q to leave out", name))
		}
	}
	if len(p.targets) == 0 {
		return control.Refuse("no node is left to apply it to")
	}
	slices.SortStableFunc(p.targets, func(a, b *target) int {
		switch {
		case a.holder == b.holder:
			return strings.Compare(a.name, b.name)
		case a.holder:
			return 1
		}
		return -1
	})
	return nil
}

// holders are the names of the holders by VIP.
func holders(v ha.View) map[string][]string {
	out := map[string][]string{}
	for _, vip := range v.VIPs {
		out[vip.Name] = slices.Sorted(slices.Values(vip.Holders))
	}
	return out
}

// askOne asks one node something of this apply.
func askOne[Out any](ctx context.Context, p *application, t *target, what string, q applyQuestion) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, peerAsk)
	defer cancel()
	q.ID, q.By, q.On = p.id, p.request.By, p.n.nodeName()
	return askPeer[Out](ctx, p.n, t.id, what, q)
}

// question is what a node must know to judge the configuration and take it.
func (p *application) question() applyQuestion {
	return applyQuestion{File: p.request.File.Name, Bundle: p.bundle, Voters: p.voters, Generation: p.generation}
}

// lock lets every node take part in this apply and no other. All applies lock in the same
// order, so of two at once one gets all.
func (p *application) lock(ctx context.Context) error {
	order := slices.SortedFunc(slices.Values(p.targets), func(a, b *target) int { return strings.Compare(string(a.id), string(b.id)) })
	number, unrecorded := uint64(0), false
	for _, t := range order {
		l, err := askOne[locked](ctx, p, t, askLock, applyQuestion{})
		if err != nil {
			return control.Refuse(fmt.Sprintf("%s: %v", t.name, err))
		}
		t.taken = true
		number, unrecorded = max(number, l.Highest), unrecorded || l.Unrecorded
	}
	if number++; unrecorded {
		number++ // what a node has now gets the number before
	}
	p.generation = generation{Number: number, ID: p.id, From: p.from, Time: time.Now().UTC().Truncate(time.Second), By: p.request.By, On: p.n.nodeName(), Comment: p.request.Comment}
	return nil
}

// unlock lets the nodes take part in another apply.
func (p *application) unlock() {
	for _, t := range p.targets {
		if t.taken {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_, _ = askOne[struct{}](ctx, p, t, askUndo, applyQuestion{}) // the lock ends by itself too
			cancel()
		}
	}
}

// check has every node judge the configuration, as that node would have it.
func (p *application) check(ctx context.Context) error {
	errs := make([]error, len(p.targets))
	done := make(chan struct{})
	for i, t := range p.targets {
		go func() { // ends within peerAsk
			t.answer, errs[i] = askOne[checked](ctx, p, t, askCheck, p.question())
			done <- struct{}{}
		}()
	}
	for range p.targets {
		<-done
	}
	// Nodes that find the same are named together.
	var texts []string
	names := map[string][]string{}
	invalid := false
	for i, t := range p.targets {
		if errs[i] == nil {
			if t.answer.Recluster {
				p.vips = nil
			}
			continue
		}
		text := errs[i].Error()
		invalid = invalid || errors.Is(errs[i], control.ErrInvalid)
		if names[text] == nil {
			texts = append(texts, text)
		}
		names[text] = append(names[text], t.name)
	}
	if len(texts) == 0 {
		return nil
	}
	var lines []string
	for _, text := range texts {
		for line := range strings.Lines(text) {
			lines = append(lines, strings.Join(names[text], ", ")+": "+strings.TrimRight(line, "\n"))
		}
	}
	lines = append(lines, "nothing was changed on any node")
	if invalid {
		return control.Invalid(strings.Join(lines, "\n"))
	}
	return control.Refuse(strings.Join(lines, "\n"))
}

// activate puts the generation in force node by node, and watches each.
func (p *application) activate(ctx context.Context) error {
	defer p.remind(ctx)()
	for _, t := range p.targets {
		h, err := p.look(ctx, t)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		t.before = h.Health
	}
	for _, t := range p.targets {
		if ctx.Err() != nil {
			return errors.New("the one who asked for it has gone")
		}
		if err := p.activateOne(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		if err := p.watch(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// remind lets every node know, until stop is called, that the apply goes on: one of them may
// take long to activate it.
func (p *application) remind(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var each sync.WaitGroup
	for _, t := range p.targets {
		each.Go(func() { // ends with stop
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(lockTime / 5):
				}
				_, _ = p.look(ctx, t) // watch judges the nodes
			}
		})
	}
	return func() { cancel(); each.Wait() }
}

func (p *application) activateOne(ctx context.Context, t *target) error {
	began := time.Now()
	t.active = true // from now on it may be
	_, err := askOne[checked](ctx, p, t, askActivate, p.question())
	for err != nil && !errors.Is(err, control.ErrRefused) && !errors.Is(err, control.ErrInvalid) {
		// The answer may be lost because the node's cluster part starts anew with it.
		if time.Since(began) > peerAsk || ctx.Err() != nil {
			return err
		}
		time.Sleep(lookEvery)
		l, lookErr := p.look(ctx, t)
		if lookErr == nil && l.State == onTrial {
			err = nil
		} else if lookErr == nil && l.State == rolledBack {
			return errors.New(l.Why)
		}
	}
	t.took = time.Since(began)
	return err
}

func (p *application) look(ctx context.Context, t *target) (looked, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return askOne[looked](ctx, p, t, askLook, applyQuestion{})
}

// A watched is what the looks at one node have found.
type watched struct {
	answered time.Time // the latest look
	first    *health   // after it was activated
	unfit    int       // looks in a row that found it unfit
	down     int       // looks in a row that found more servers down than before
	unready  int       // looks in a row that found it not ready
}

// watch looks at all nodes while t is on trial, for the time that was asked for: long
// enough for one look at each at the least.
func (p *application) watch(ctx context.Context, t *target) error {
	end := time.Now().Add(time.Duration(p.request.CanaryMS) * time.Millisecond)
	seen := map[*target]*watched{}
	for _, o := range p.targets {
		seen[o] = &watched{answered: time.Now()}
	}
	for {
		whole := true
		for _, o := range p.targets {
			ok, err := p.watchOne(ctx, o, seen[o])
			if err != nil {
				return fmt.Errorf("%s, while %s was on trial: %w", o.name, t.name, err)
			}
			whole = whole && ok
		}
		if err := p.watchVIPs(ctx); err != nil {
			return fmt.Errorf("while %s was on trial: %w", t.name, err)
		}
		if whole && time.Now().After(end) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the one who asked for it has gone")
		case <-time.After(lookEvery):
		}
	}
}

// watchOne looks at one node and judges it. It reports whether there was an answer and
// nothing is in doubt.
func (p *application) watchOne(ctx context.Context, t *target, w *watched) (bool, error) {
	l, err := p.look(ctx, t)
	if err != nil {
		if time.Since(w.answered) > missingTime {
			return false, fmt.Errorf("it is missing: %w", err)
		}
		return false, nil
	}
	w.answered = time.Now()
	if !t.active {
		return true, nil
	}
	if l.State != onTrial {
		return false, fmt.Errorf("the generation is %q there: %s", l.State, l.Why)
	}
	h := l.Health
	if w.first == nil {
		w.first = &h
	}
	if w.unready++; h.Ready {
		w.unready = 0
	}
	if w.unready >= badLooks {
		return false, fmt.Errorf("it is not ready: %s", h.Why)
	}
	if err := w.fit(h, t.before); err != nil {
		return false, err
	}
	if w.down++; h.Servers-h.Up <= t.before.Servers-t.before.Up {
		w.down = 0
	}
	if w.down >= badLooks {
		return false, fmt.Errorf("%d of %d servers are not up; before it were %d of %d", h.Servers-h.Up, h.Servers, t.before.Servers-t.before.Up, t.before.Servers)
	}
	if all := h.Requests - min(h.Requests, w.first.Requests); all >= fewRequests {
		share := float64(h.Failed-min(h.Failed, w.first.Failed)) / float64(all)
		if was := failures(t.before); share > was+moreFailures {
			return false, fmt.Errorf("%.0f %% of %d requests failed; before it were %.0f %%", 100*share, all, 100*was)
		}
	}
	return w.unready == 0 && w.unfit == 0 && w.down == 0, nil
}

// fit judges whether a node became unfit by what it has on trial.
func (w *watched) fit(now, before health) error {
	if w.unfit++; now.Unfit == "" || before.Unfit != "" {
		w.unfit = 0
	}
	if w.unfit >= badLooks {
		return fmt.Errorf("it is unfit: %s", now.Unfit)
	}
	return nil
}

// failures is the share of requests that failed.
func failures(h health) float64 {
	if h.Requests == 0 {
		return 0
	}
	return float64(h.Failed) / float64(h.Requests)
}

// watchVIPs reports a VIP that has moved.
func (p *application) watchVIPs(ctx context.Context) error {
	k, _, _ := p.n.part()
	if p.vips == nil || k == nil {
		return nil
	}
	v, err := k.node.Status(ctx)
	if err != nil {
		return err
	}
	now := holders(v)
	for name, was := range p.vips {
		if is, known := now[name]; known && !slices.Equal(is, was) {
			return fmt.Errorf("vip %s moved from %v to %v", name, was, is)
		}
	}
	return nil
}

// commit makes the generation stay. The shared state decides: what is written there holds
// for every node, whether it hears the rest or not.
func (p *application) commit(ctx context.Context) (warnings []string, err error) {
	text, err := json.Marshal(committed{ID: p.id, Number: p.generation.Number, Config: p.targets[0].answer.Reload.Config, Time: p.generation.Time, By: p.request.By, Comment: p.request.Comment})
	if err != nil {
		return nil, err
	}
	if err := p.n.shared.put(0, generationKind, generationKey, text, time.Time{}); err != nil {
		return nil, err
	}
	p.n.stand(true) // writes the shared entries that outlive a crash
	ctx = context.WithoutCancel(ctx)
	for _, t := range p.targets {
		if _, err := askOne[struct{}](ctx, p, t, askCommit, applyQuestion{}); err != nil {
			warnings = append(warnings, fmt.Sprintf("%s has not yet said that it keeps the generation; it does when it hears of it: %v", t.name, err))
		}
		t.taken = false
	}
	return warnings, nil
}

// begun reports whether any node was changed.
func (p *application) begun() bool {
	return slices.ContainsFunc(p.targets, func(t *target) bool { return t.active })
}

// undo puts back what was there before, on every node where that may be needed, and says
// how that went.
func (p *application) undo(why error) string {
	var back, open []string
	for _, t := range slices.Backward(p.targets) {
		if !t.active {
			continue
		}
		var err error
		for began := time.Now(); ; time.Sleep(lookEvery) {
			ctx, cancel := context.WithTimeout(context.Background(), peerAsk)
			_, err = askOne[struct{}](ctx, p, t, askUndo, applyQuestion{Why: shortText(why.Error())})
			cancel()
			if err == nil || errors.Is(err, control.ErrRefused) || time.Since(began) > missingTime {
				break
			}
		}
		t.taken = false
		if err == nil {
			back = append(back, t.name)
		} else {
			open = append(open, t.name)
		}
	}
	var words []string
	if len(back) > 0 {
		words = append(words, "rolled back on "+strings.Join(back, ", "))
	}
	if len(open) > 0 {
		words = append(words, fmt.Sprintf("%s did not answer and rolls back by itself, when it is back or after %v", strings.Join(open, ", "), lockTime))
	}
	return strings.Join(words, "; ")
}

func (p *application) result() *control.Applied {
	r := &control.Applied{Generation: p.generation.Number, DryRun: p.request.DryRun, Warnings: append([]string{}, p.warnings...)}
	for _, t := range p.targets {
		r.Config = t.answer.Reload.Config
		r.Nodes = append(r.Nodes, control.AppliedNode{Name: t.name, Holder: t.holder, Config: t.answer.Reload.Config, Changes: t.answer.Reload.Changes,
			Changed: t.answer.Reload.Changed, Warnings: t.answer.Reload.Warnings, MS: float64(t.took.Microseconds()) / 1000})
	}
	return r
}
