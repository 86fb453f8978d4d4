package upstream

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"proxyd/internal/config"
)

// An Env is what pools need of the world. All fields have working zero values.
type Env struct {
	Log     *slog.Logger                                                 // default: nothing is logged
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error) // default: the system's resolver
	Dial    func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// Filled returns e with the default for every zero field.
func (e Env) Filled() Env {
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	if e.Resolve == nil {
		e.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if e.Dial == nil {
		e.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			d := net.Dialer{KeepAlive: -1} // it lasts for one question
			return d.DialContext(ctx, "tcp", to.String())
		}
	}
	return e
}

const (
	maxChecks  = 1024 // under way at once; more wait for their turn
	maxLookUps = 64   // likewise

	// firstPace is between the first checks of two servers, so that a start with
	// thousands of them is no burst.
	firstPace = time.Millisecond
)

// A Watch keeps an eye on the servers of all pools: it looks their names up and asks for
// their health, again and again. It outlives reloads: a server that stays keeps its turn.
//
// One goroutine keeps the time for all; only what is under way has one of its own.
type Watch struct {
	env  Env
	life context.Context // ends what is under way
	stop context.CancelFunc
	wake chan struct{} // holds one: something may begin earlier than was thought
	work sync.WaitGroup

	mu      sync.Mutex // guards what follows
	checks  lane
	lookUps lane
	first   int // turns of checks that have had no result yet
}

// NewWatch returns a Watch that watches nothing yet. Close ends it.
func NewWatch(e Env) *Watch {
	w := &Watch{env: e.Filled(), wake: make(chan struct{}, 1), checks: newLane(maxChecks), lookUps: newLane(maxLookUps)}
	w.life, w.stop = context.WithCancel(context.Background())
	w.work.Go(w.run) // ends with w.life
	return w
}

// Close ends the checks and look-ups, those under way too.
func (w *Watch) Close() {
	w.stop()
	w.work.Wait()
}

// Settled reports that every check has had a result.
func (w *Watch) Settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first == 0
}

// Use takes the servers of these pools into use and forgets about all others. What the
// new configuration no longer asks about is dropped from a server's health.
func (w *Watch) Use(pools map[string]*Pool) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	fresh := 0
	for _, p := range pools {
		p.enter()
		for _, s := range p.servers {
			s.secure(p.Secure(), w.env.Log)
			s.SetHTTP2(p.HTTP2())
			s.change(func(h *Health) { h.Forget(p.Config) })
			if s.host != "" && w.lookUps.keep(s, p) == nil {
				t := &turn{server: s, pool: p, due: now}
				if s.Addr().IsValid() {
					t.due = now.Add(resolveEvery)
				}
				w.lookUps.add(t)
			}
			if p.question == nil {
				s.SetLost(false)
				continue
			}
			if t := w.checks.keep(s, p); t == nil {
				w.checks.add(&turn{server: s, pool: p, due: now.Add(pace(fresh, p.question.Interval)), first: true})
				w.first++
				fresh++
			} else if !p.question.same(t.asked) {
				w.checks.move(t, now.Add(pace(fresh, p.question.Interval)))
				fresh++
			}
		}
	}
	w.lookUps.sweep()
	w.first -= w.checks.sweep()
	w.rouse()
}

// Reseal has the servers of a pool in use spoken to in another way by TLS.
func (w *Watch) Reseal(p *Pool, how *Secure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.secure.Store(how)
	for _, s := range p.servers {
		s.secure(how, w.env.Log)
	}
}

// pace returns how long the nth new server waits for its first check: never longer than
// an interval.
func pace(n int, interval time.Duration) time.Duration {
	if d := time.Duration(n) * firstPace; d < interval {
		return d
	}
	return rand.N(interval)
}

// same reports whether q asks what other asks.
func (q *question) same(other *question) bool {
	return q == other || q != nil && other != nil && reflect.DeepEqual(q.Check, other.Check) && q.clear == other.clear && bytes.Equal(q.hello, other.hello)
}

func (w *Watch) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run begins what is due until the Watch is closed.
func (w *Watch) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-w.wake:
		case <-w.life.Done():
			return
		}
		timer.Reset(w.begin(time.Now()))
	}
}

// begin begins what is due at now and returns how long nothing more will be.
func (w *Watch) begin(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := w.checks.next(now); t != nil; t = w.checks.next(now) {
		t.asked = t.pool.question
		w.work.Go(func() { w.check(t, now) }) // ends with the answer or its time-out
	}
	for t := w.lookUps.next(now); t != nil; t = w.lookUps.next(now) {
		w.work.Go(func() { w.lookUp(t) }) // likewise
	}
	return min(w.checks.wait(now), w.lookUps.wait(now))
}

// check asks t's server and learns from the answer.
func (w *Watch) check(t *turn, begun time.Time) {
	wrong := t.asked.ask(w.life, w.env, t.server)
	if w.life.Err() != nil {
		return
	}
	took := time.Since(begun)
	w.mu.Lock()
	changed := false
	if stands := !t.over && t.pool.question.same(t.asked); stands {
		changed = t.server.probed(wrong, t.asked.Check, took)
		if changed {
			t.server.SetLost(wrong != "" && !t.pool.Panicking(time.Now()))
		}
	}
	pool := t.pool
	w.finish(&w.checks, t, begun.Add(t.rest()))
	w.mu.Unlock()
	switch {
	case changed && wrong == "":
		w.env.Log.Info("server is up", "pool", pool.Name, "server", t.server.Name)
	case changed:
		w.env.Log.Warn("server is down", "pool", pool.Name, "server", t.server.Name, "reason", wrong)
	}
}

// probed notes the result of a check and reports whether it changed the server's state.
func (s *Server) probed(wrong string, c *config.Check, took time.Duration) (changed bool) {
	result := CheckPassed
	if wrong != "" {
		result = CheckFailed
	}
	s.Checks[result].Add(1)
	s.CheckTime.Observe(took)
	s.change(func(h *Health) { changed = h.Probe(wrong, c) })
	return changed
}

// rest returns how long after a check's beginning the next one begins. The second check
// comes somewhere in the second half of an interval, so that servers which were first
// asked together are not from then on; later a tenth of jitter either way keeps nodes
// from asking in step.
func (t *turn) rest() time.Duration {
	interval := t.pool.question.Interval
	if t.first {
		return interval/2 + rand.N(interval/2)
	}
	return interval - interval/10 + rand.N(interval/5+1)
}

// lookUp looks the name of t's server up.
func (w *Watch) lookUp(t *turn) {
	t.failing = t.server.lookUp(w.life, w.env, t.failing)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finish(&w.lookUps, t, time.Now().Add(resolveEvery))
}

// finish puts t back into its lane, to be due at that time, unless it is over.
func (w *Watch) finish(l *lane, t *turn, due time.Time) {
	full := l.full()
	l.busy--
	if t.first && !t.over {
		w.first--
	}
	t.first = false
	if !t.over {
		l.put(t, due)
	}
	if full || t.place == 0 {
		w.rouse()
	}
}

// Retire marks the servers of p that are not in next as gone. next may be nil.
func (p *Pool) Retire(next *Pool) {
	kept := map[*Server]bool{}
	if next != nil {
		for _, s := range next.servers {
			kept[s] = true
		}
	}
	for _, s := range p.servers {
		if !kept[s] {
			s.SetGone(true)
		}
	}
}
