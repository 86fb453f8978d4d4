// Package track looks, again and again, at what else a node's fitness depends on: commands,
// files, processes, interfaces, pools. It judges; what follows from that is the affair of
// whoever asks.
package track

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"proxyd/internal/config"
)

// Options are what a Set needs of the world.
type Options struct {
	Log *slog.Logger
	// Pool says why no server of a pool is well; "" if one is.
	Pool func(name string) string
	// Holds reports whether this node holds an address. Of a pool one who holds none is
	// judged by a single look: what all nodes see moves nothing, if the others see it first.
	Holds func() bool
	// OnChange, if set, is told each change of an opinion, by the goroutine that looked.
	OnChange func(State)

	look func(ctx context.Context, t *config.Track) string // of tests, in place of the true one
}

// A Set is what is tracked now. Each track has a goroutine of its own, so none waits for
// another, and none is looked at twice at once.
type Set struct {
	Options
	life    context.Context
	end     context.CancelFunc
	loops   sync.WaitGroup
	changed chan struct{}

	mu     sync.Mutex
	tracks []*tracked
}

// A tracked is one track under way.
type tracked struct {
	conf *config.Track
	look func(ctx context.Context) string
	stop context.CancelFunc
	done chan struct{}

	mu    sync.Mutex
	judge judge
	state State
}

// State is one track as it stands.
type State struct {
	Name   string
	Kind   string
	Weight config.Weight
	Up     bool
	Known  bool      // it was looked at
	Reason string    // why the latest look failed; "" if it did not
	Since  time.Time // of Up
	Good   uint64    // looks
	Failed uint64
}

// A Burden is what the failed tracks cost together.
type Burden struct {
	Veto    bool
	Less    int // the sum of the weights
	Reasons []string
}

// New returns a Set that tracks nothing yet. Close ends it.
func New(o Options) *Set {
	s := &Set{Options: o, changed: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Close ends all looks, those under way too.
func (s *Set) Close() {
	s.end()
	s.loops.Wait()
}

// Changed has a value when an opinion has changed, or what is tracked. It is for one
// reader.
func (s *Set) Changed() <-chan struct{} { return s.changed }

// Use tracks these and nothing else. One that stays as it is goes on; of one that looks at
// the same in another way the opinion is kept.
func (s *Set) Use(tracks []*config.Track) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return
	}
	old := map[string]*tracked{}
	for _, t := range s.tracks {
		old[t.conf.Name] = t
	}
	s.tracks = nil
	for _, c := range tracks {
		was := old[c.Name]
		if was != nil && same(was.conf, c) {
			delete(old, c.Name)
			s.tracks = append(s.tracks, was)
			continue
		}
		s.tracks = append(s.tracks, s.start(c, was))
	}
	for _, t := range old {
		t.stop()
	}
	s.rouse()
}

// start begins to look. What was looked at under the name before ends first.
func (s *Set) start(c *config.Track, was *tracked) *tracked {
	ctx, stop := context.WithCancel(s.life)
	t := &tracked{conf: c, look: s.looker(c), stop: stop, done: make(chan struct{})}
	t.state = State{Name: c.Name, Kind: c.Kind(), Weight: c.Weight, Up: true, Since: time.Now()}
	if was != nil {
		was.mu.Lock()
		t.state.Good, t.state.Failed = was.state.Good, was.state.Failed
		if target(was.conf) == target(c) {
			t.judge = was.judge
			t.state.Up, t.state.Known, t.state.Reason, t.state.Since = was.state.Up, was.state.Known, was.state.Reason, was.state.Since
		}
		was.mu.Unlock()
	}
	s.loops.Go(func() { // ends with stop
		defer close(t.done)
		if was != nil {
			<-was.done
		}
		s.watch(ctx, t)
	})
	return t
}

// watch looks once per interval until ctx ends.
func (s *Set) watch(ctx context.Context, t *tracked) {
	tick := time.NewTicker(t.conf.Interval)
	defer tick.Stop()
	for {
		why := t.look(ctx)
		if ctx.Err() != nil {
			return // it was cut short
		}
		if t.take(why, s.fall(t)) {
			s.tell(t)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// fall is how many failed looks in a row are needed now.
func (s *Set) fall(t *tracked) int {
	if t.conf.Pool != "" && s.Holds != nil && !s.Holds() {
		return 1
	}
	return t.conf.Fall
}

// take takes in what a look found and reports whether the opinion changed.
func (t *tracked) take(why string, fall int) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if why == "" {
		t.state.Good++
	} else {
		t.state.Failed++
	}
	changed = t.judge.add(why == "", t.conf.Rise, fall)
	t.state.Known, t.state.Up, t.state.Reason = true, !t.judge.failed, why
	if changed {
		t.state.Since = time.Now()
	}
	return changed
}

func (s *Set) tell(t *tracked) {
	v := t.view()
	if v.Up {
		s.Log.Info("a track is good", "track", v.Name)
	} else {
		s.Log.Warn("a track has failed", "track", v.Name, "reason", v.Reason)
	}
	if s.OnChange != nil {
		s.OnChange(v)
	}
	s.rouse()
}

func (s *Set) rouse() {
	select {
	case s.changed <- struct{}{}:
	default: // it is to be read already
	}
}

func (t *tracked) view() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// States returns all tracks in the order of the file.
func (s *Set) States() []State {
	s.mu.Lock()
	tracks := slices.Clone(s.tracks)
	s.mu.Unlock()
	out := make([]State, len(tracks))
	for i, t := range tracks {
		out[i] = t.view()
	}
	return out
}

// Known reports whether each track was looked at.
func (s *Set) Known() bool {
	return !slices.ContainsFunc(s.States(), func(v State) bool { return !v.Known })
}

// Burden sums up what has failed.
func (s *Set) Burden() Burden {
	var b Burden
	for _, v := range s.States() {
		if v.Up {
			continue
		}
		b.Veto = b.Veto || v.Weight.Veto
		b.Less += v.Weight.Less
		reason := v.Reason
		if reason == "" {
			reason = "good again, not for long enough"
		}
		b.Reasons = append(b.Reasons, "track "+v.Name+": "+reason)
	}
	return b
}

// same reports whether two tracks are one in every key.
func same(a, b *config.Track) bool {
	return target(a) == target(b) && a.Interval == b.Interval && a.Timeout == b.Timeout && a.Rise == b.Rise && a.Fall == b.Fall && a.Weight == b.Weight
}
