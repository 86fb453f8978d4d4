package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/history"
)

// historyKind is the kind of the shared entries in which each node gives the others the
// latest of what it wrote down.
const historyKind = "history"

// A recorder writes down what happens on this node, and learns what the others wrote. It
// never holds up who tells it something. It is safe for concurrent use.
type recorder struct {
	log  *slog.Logger
	ring *history.Ring
	node string
	file string // of the seconds without a holder

	stale chan struct{} // has one value when the others do not have the latest yet

	mu     sync.Mutex
	part   *ha.Node
	before map[string]time.Duration // by VIP, without a holder before part was made
	during map[string]time.Duration // while part runs, as last seen
	saved  map[string]time.Duration
	fixed  map[string]uint64 // by VIP: repairs that are written down
	fault  string            // as last logged
	crowd  shedding
}

// newRecorder opens what earlier lives left in dir.
func newRecorder(dir, node string, started time.Time, log *slog.Logger) *recorder {
	ring, err := history.Open(dir, node, started)
	if err != nil {
		log.Warn("history", "error", err)
	}
	r := &recorder{log: log, ring: ring, node: node, file: filepath.Join(dir, "unheld.json"),
		stale:  make(chan struct{}, 1),
		before: map[string]time.Duration{}, during: map[string]time.Duration{}, fixed: map[string]uint64{}}
	if text, err := os.ReadFile(r.file); err == nil {
		if err := json.Unmarshal(text, &r.before); err != nil {
			log.Warn("seconds without a holder are counted from 0 again", "file", r.file, "error", err)
			r.before = map[string]time.Duration{}
		}
	}
	r.saved = maps.Clone(r.before)
	return r
}

// note writes down one thing.
func (r *recorder) note(e history.Entry) {
	r.ring.Note(e)
	r.outdate()
}

// outdate has the others given the latest, soon.
func (r *recorder) outdate() {
	select {
	case r.stale <- struct{}{}:
	default:
	}
}

// wall returns the time at an instant, by this node's wall clock as it goes now.
func wall(at clock.Instant) time.Time { return time.Now().Add(-clock.Now().Sub(at)) }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// changed writes down that a VIP changed hands, with what this node met before it.
func (r *recorder) changed(c ha.Change) {
	e := history.Entry{Time: wall(c.At), Kind: history.Changed, VIP: c.VIP, Term: c.Term, From: c.From, To: c.To,
		Reason: string(c.Reason), Text: c.Text, TookMS: milliseconds(c.Took)}
	if c.Heard != 0 {
		e.Steps = append(e.Steps, history.Step{MS: milliseconds(c.Heard.Sub(c.At)), What: history.LastHeard, Node: c.From})
	}
	for _, f := range c.Trail {
		e.Steps = append(e.Steps, history.Step{MS: milliseconds(f.At.Sub(c.At)), What: string(f.Kind), Node: f.Peer, Text: factText(f)})
	}
	r.note(e)
}

// met writes down what the cluster part met beside the changes.
func (r *recorder) met(f ha.Fact) {
	e := history.Entry{Time: wall(f.At), Kind: history.Kind(f.Kind), VIP: f.VIP, Term: f.Term, To: f.Peer, Text: f.Text, TookMS: milliseconds(f.For)}
	if f.Kind == ha.FactYield {
		e.Kind, e.Reason, e.Text = history.Released, f.Text, "handed to "+f.Peer
	}
	r.note(e)
}

// factText is what a step says beside its kind.
func factText(f ha.Fact) string {
	switch {
	case f.Kind == ha.FactStall, f.Kind == ha.FactHeard && f.For > 0:
		return fmt.Sprintf("%d ms", f.For.Milliseconds())
	case f.Kind == ha.FactClaim, f.Kind == ha.FactTake:
		return fmt.Sprintf("term %d", f.Term)
	}
	return f.Text
}

// publish gives the others what this node wrote down last.
func (r *recorder) publish(s *shared) {
	if err := s.put(0, historyKind, entryKey(r.node), r.ring.Pack(), time.Time{}); err != nil {
		r.log.Warn("give the other nodes the history", "error", err)
	}
}

// learn takes in what another node packed. Of our own name it is from an earlier life,
// or of a time before our state was lost: the others are given the present again.
func (r *recorder) learn(node string, value []byte) {
	entries, err := history.Unpack(value)
	if err != nil {
		r.log.Warn("history of another node", "node", node, "error", err)
	}
	r.ring.Learn(entries)
	if node == entryKey(r.node) {
		r.outdate()
	}
}

// unheld returns for how long the VIP had no holder that this node knew of, over all its
// lives.
func (r *recorder) unheld(part *ha.Node, v ha.VIPView) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if part != r.part {
		for vip, d := range r.during {
			r.before[vip] += d
		}
		clear(r.during)
		r.part = part
	}
	r.during[v.Name] = v.Unheld
	return r.before[v.Name] + v.Unheld
}

// What happens at once is gathered before the others are given it, and they are given
// no more than once in a while.
const (
	gatherTime   = 50 * time.Millisecond
	publishEvery = time.Second
)

// share gives the others what is noted until ctx ends.
func (r *recorder) share(ctx context.Context, s *shared) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	<-wait.C
	for last := (time.Time{}); ; last = time.Now() {
		select {
		case <-ctx.Done():
			return
		case <-r.stale:
		}
		wait.Reset(max(gatherTime, publishEvery-time.Since(last)))
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		r.publish(s)
	}
}

// recordEvery is how often what nobody tells of is looked at.
const recordEvery = time.Second

// run looks after the ring until ctx ends.
func (r *recorder) run(ctx context.Context, n *node) {
	written := make(chan struct{})
	go func() { // ends after ctx does, when all is written
		defer close(written)
		r.ring.Run(ctx)
	}()
	go r.share(ctx, n.shared) // ends with ctx
	for {
		select {
		case <-ctx.Done():
			r.save()
			<-written
			return
		case <-time.After(clock.Next(recordEvery)):
		}
		r.look(ctx, n)
		r.save()
	}
}

// look notes repairs, and follows for how long nobody held what.
func (r *recorder) look(ctx context.Context, n *node) {
	fault := r.ring.Stats().Fault
	r.mu.Lock()
	if fault != r.fault {
		if r.fault = fault; fault != "" {
			r.log.Warn("history is not written to the disk; service goes on", "error", fault)
		} else {
			r.log.Info("history is written to the disk again")
		}
	}
	text := r.crowd.look(time.Now(), n.plane.Load())
	r.mu.Unlock()
	if text != "" {
		r.note(history.Entry{Kind: history.Overload, Text: text})
	}
	k, _, _ := n.part()
	if k == nil {
		return
	}
	ask, cancel := context.WithTimeout(ctx, recordEvery)
	defer cancel()
	v, err := k.node.Status(ask)
	if err != nil {
		return // it is ending
	}
	for _, vv := range v.VIPs {
		r.unheld(k.node, vv)
		keeper := k.now().keepers[vv.Name]
		if keeper == nil {
			continue
		}
		repairs := keeper.Stats.Repairs.Load()
		r.mu.Lock()
		more := repairs > r.fixed[vv.Name]
		r.fixed[vv.Name] = repairs
		r.mu.Unlock()
		if more {
			r.note(history.Entry{Kind: history.Repair, VIP: vv.Name, Term: vv.Term, Text: fmt.Sprintf("%d times since the start", repairs)})
		}
	}
}

// save keeps the time without a holder over a restart. A disk that fails costs that alone,
// and is reported by the ring, which is in the same directory.
func (r *recorder) save() {
	r.mu.Lock()
	sum := maps.Clone(r.before)
	for vip, d := range r.during {
		sum[vip] += d
	}
	same := maps.Equal(sum, r.saved)
	r.mu.Unlock()
	if same {
		return
	}
	text, err := json.Marshal(sum)
	if err != nil {
		return
	}
	next := r.file + ".new"
	if os.WriteFile(next, text, 0o640) != nil || os.Rename(next, r.file) != nil {
		return
	}
	r.mu.Lock()
	r.saved = sum
	r.mu.Unlock()
}
