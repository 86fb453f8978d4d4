package overload

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A world is a node in a simulation: one processor, which works off a queue in order and
// is taken away for two thirds of each period, behind clients that send by the clock on a
// limited number of connections.
type world struct {
	period time.Duration
	gate   *Gate
	exact  bool // the node knows how long each request has waited
	conns  int
	rate   float64       // requests a second that the clients mean to send
	cost   time.Duration // of an exchange
	shed   float64       // of a refusal, as a share of cost
	wait   time.Duration // for the server, without the processor
	rand   *rand.Rand
	events agenda
	refuse int           // refusals under way that did not wait
	begun  time.Duration // of the run, on the gate's clock
	ran    time.Duration
}

type event struct {
	at   time.Duration
	what int // request, answer, refusal, free
	from time.Duration
	turn int // of those at the same time
}

// An agenda is events, the next first.
type agenda []event

func (a agenda) Len() int      { return len(a) }
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].turn < a[j].turn
}
func (a *agenda) Push(e any) { *a = append(*a, e.(event)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	*a = (*a)[:last]
	return e
}

const (
	request = iota
	answer
	refusal
	tick // of the room in which refusals wait
)

// first returns which events are the n refusals that come first.
func (w *world) first(n int) (which []int) {
	for i, e := range w.events {
		if e.what == refusal {
			which = append(which, i)
		}
	}
	slices.SortFunc(which, func(a, b int) int { return int(w.events[a].at - w.events[b].at) })
	return which[:min(n, len(which))]
}

// result is what the second half of a run came to.
type result struct {
	served, refused int
	p99             time.Duration
}

const (
	period = 100 * time.Millisecond // of a quota that the kernel enforces
	paced  = 5 * time.Millisecond   // of one that the node keeps to by itself
	slice  = 33 * time.Millisecond  // of period

	epoch = 1_000_000
)

// follow has other clients come, who mean to send so much, a second after the last ones went.
func (w *world) follow(load float64) {
	w.rate = load * float64(peak) / 10
	w.begun += w.ran + time.Second
	w.events, w.refuse = nil, 0
	for w.gate.Inflight() > 0 {
		w.gate.Leave()
	}
	for w.gate.Held() > 0 {
		w.gate.Release()
	}
}

// run plays the clients for so long.
func (w *world) run(length time.Duration) result {
	w.rand = rand.New(rand.NewPCG(1, 2))
	w.ran = length
	var r result
	var times []time.Duration
	idle := w.conns
	clock := time.Duration(0) // when the processor is free
	due := time.Duration(0)   // when the next request is meant to be sent
	pushed := 0
	waiting := 0 // meant to be sent, without a connection
	push := func(e event) {
		pushed++
		e.turn = pushed
		heap.Push(&w.events, e)
	}
	release := func(at time.Duration) {
		if waiting > 0 {
			waiting--
			push(event{at: at, what: request, from: at})
		} else {
			idle++
		}
	}
	push(event{at: roomTick, what: tick})
	work := func(cost time.Duration) time.Duration {
		for cost > 0 {
			if in := clock % w.period; in >= w.period*slice/period {
				clock += w.period - in
			}
			part := min(cost, w.period*slice/period-clock%w.period)
			clock += part
			cost -= part
		}
		return clock
	}
	for clock < length {
		for len(w.events) == 0 || due <= w.events[0].at {
			if idle > 0 {
				idle--
				push(event{at: due, what: request, from: due})
			} else if waiting < 10*w.conns {
				waiting++
			}
			due += time.Duration(w.rand.ExpFloat64() / w.rate * float64(time.Second))
		}
		e := heap.Pop(&w.events).(event)
		clock = max(clock, e.at)
		if in := clock % w.period; in >= w.period*slice/period {
			clock += w.period - in
		}
		second := clock > length/2
		now := time.Unix(epoch, 0).Add(w.begun + clock)
		switch e.what {
		case request:
			lag := clock - e.at
			if !w.gate.Enter(now, func() time.Duration { return lag }, w.exact) {
				end := work(time.Duration(w.shed * float64(w.cost) / 2))
				hold, held := w.gate.Hold()
				push(event{at: end + hold, what: refusal, from: e.from})
				if !held {
					w.refuse++
				}
				continue
			}
			end := work(w.cost / 2)
			push(event{at: end + w.wait, what: answer, from: e.from})
		case answer:
			end := work(w.cost / 2)
			w.gate.Leave()
			if second {
				r.served++
				times = append(times, end-e.from)
			}
			release(end)
		case tick:
			push(event{at: max(clock, e.at+roomTick), what: tick})
			n := w.gate.Early(now, int(w.gate.Held()))
			if n > 0 {
				for _, i := range w.first(n) {
					w.events[i].at = clock
				}
				heap.Init(&w.events)
			}
		case refusal:
			if w.refuse > 0 {
				w.refuse--
			} else {
				w.gate.Release()
			}
			end := work(time.Duration(w.shed * float64(w.cost) / 2))
			if second {
				r.refused++
			}
			release(end)
		}
	}
	slices.Sort(times)
	if len(times) > 0 {
		r.p99 = times[len(times)*99/100]
	}
	return r
}

const cost = 130 * time.Microsecond

// peak is what a third of a processor can do in ten seconds.
const peak = int(10 * time.Second / cost * slice / period)

func at(load float64, conns int) *world {
	return &world{period: period, gate: &Gate{}, conns: conns, rate: load * float64(peak) / 10, cost: cost, shed: 0.35, wait: time.Millisecond}
}

func TestANodeThatKeepsUpRefusesNobody(t *testing.T) {
	for _, each := range []time.Duration{period, paced} {
		for _, load := range []float64{0.1, 0.5, 0.8, 0.9} {
			w := at(load, 1000)
			w.period = each
			if r := w.run(20 * time.Second); r.refused > 0 {
				t.Errorf("in periods of %v, at %v of its capacity it refused %d of %d", each, load, r.refused, r.served)
			}
		}
	}
}

func TestSlowServersAreNoOverload(t *testing.T) {
	w := at(0.8, 5000)
	w.wait = 800 * time.Millisecond
	if r := w.run(20 * time.Second); r.refused > 0 {
		t.Errorf("it refused %d of %d, though it only waits for servers", r.refused, r.served)
	}
}

func TestGoodputAndDelayHoldAtThreeTimesTheCapacity(t *testing.T) {
	for _, each := range []time.Duration{period, paced, paced + 1} {
		for _, conns := range []int{64, 256, 1000, 3000} {
			w := at(0.8, conns)
			w.period, w.exact = each, each > paced && each < period
			normal := w.run(20 * time.Second)
			w.follow(3)
			r := w.run(20 * time.Second)
			t.Logf("periods of %v, %d connections: %d served of %d at best, %d refused, p99 %v (normal %v), bound %d", each, conns, r.served, peak, r.refused, r.p99, normal.p99, w.gate.limit.Load())
			if r.served < peak*9/10 {
				t.Errorf("periods of %v, %d connections: %d served, want nine tenths of %d", each, conns, r.served, peak)
			}
			if most := max(2*normal.p99, leastAlarm*3/2); r.p99 > most {
				t.Errorf("periods of %v, %d connections: p99 %v, want under %v", each, conns, r.p99, most)
			}
		}
	}
}

// With so many clients even refusals that wait as long as they may are a good part of the
// work. Most of it is still done for those who are let in.
func TestGoodputDoesNotCollapseHoweverManyAreRefused(t *testing.T) {
	if r := at(3, 10000).run(30 * time.Second); r.served < peak*3/2*7/10 {
		t.Errorf("%d served of %d at best, %d refused", r.served, peak*3/2, r.refused)
	}
}

// Clients that each wait for their answer before they ask again make a queue as long as
// there are clients. Where no quota holds the node back, they get their answers.
func TestManyClosedLoopClientsAreNoOverloadWithoutAQuota(t *testing.T) {
	w := at(10, 2000)
	w.gate.Curbed = func() bool { return false }
	if r := w.run(20 * time.Second); r.refused > 0 || r.served < peak*9/10 {
		t.Errorf("%d served of %d at best, %d refused", r.served, peak, r.refused)
	}
}

func TestAQuotaThatIsSeenNowAndThenCounts(t *testing.T) {
	w := at(3, 1000)
	asked := 0
	w.gate.Curbed = func() bool { asked++; return asked%3 == 0 }
	if r := w.run(20 * time.Second); r.refused == 0 || r.served < peak*9/10 {
		t.Errorf("%d served of %d at best, %d refused", r.served, peak, r.refused)
	}
}

// feed has so many windows pass, each with the same delay, and returns the time after them.
func feed(g *Gate, now time.Time, windows int, lag time.Duration) time.Time {
	for range windows * 100 {
		if g.Enter(now, func() time.Duration { return lag }, false) {
			g.Leave()
		}
		now = now.Add(window / 100)
	}
	return now
}

// What is too long is judged by what is usual on this node. One that has seen nothing yet
// is patient.
func TestTheAlarmFollowsWhatIsUsual(t *testing.T) {
	const delay = 60 * time.Millisecond
	start := time.Unix(epoch, 0)
	for _, c := range []struct {
		name  string
		usual time.Duration
		shut  bool
	}{{"short delays", 2 * time.Millisecond, true}, {"long delays", 50 * time.Millisecond, false}} {
		g := &Gate{}
		now := feed(g, start, 3*fallWindows, c.usual)
		if now = feed(g, now, 3*alarmWindows, delay); g.Shut(now) != c.shut {
			t.Errorf("a delay of %v, where %s are usual: shut is %v", delay, c.name, g.Shut(now))
		}
	}
	g := &Gate{}
	if now := feed(g, start, 3*alarmWindows, delay); g.Shut(now) {
		t.Errorf("a delay of %v shuts the gate of a new node", delay)
	}
}

func TestWithoutAQuotaOverloadIsWhatNobodyWaitsOut(t *testing.T) {
	w := at(10, 10000)
	w.gate.Curbed = func() bool { return false }
	r := w.run(30 * time.Second)
	if !w.gate.Shut(time.Unix(epoch, 0)) || r.served < peak*3/2*7/10 {
		t.Errorf("%d served of %d at best, %d refused, p99 %v, bound %d", r.served, peak*3/2, r.refused, r.p99, w.gate.limit.Load())
	}
}

// Exchanges that stay under way for long, uploads that drip among them, come all at once and make
// a delay that shuts the gate. When they only wait, others are let in, however long those stay.
func TestWhoWaitsForLongKeepsNobodyOut(t *testing.T) {
	g := &Gate{Curbed: func() bool { return false }}
	now := time.Unix(epoch, 0)
	late := func() time.Duration { return patience + window }
	stay := 0
	for range 2000 {
		if g.Enter(now, late, false) {
			stay++
		}
		now = now.Add(4 * alarmWindows * window / 2000)
	}
	if !g.Shut(now) || stay < 500 {
		t.Fatalf("shut is %v with %d under way", g.Shut(now), stay)
	}
	now = feed(g, now, 10, 0)
	refused := g.refused.Load()
	feed(g, now, 10, 0)
	if more := g.refused.Load() - refused; more > 0 {
		t.Errorf("%d of 1000 are refused, while %d wait and there is no delay", more, stay)
	}
}

func TestTheGateOpensAgain(t *testing.T) {
	w := at(3, 1000)
	w.run(20 * time.Second)
	if !w.gate.Shut(time.Unix(epoch, 0)) {
		t.Fatal("not shut at three times the capacity")
	}
	now := time.Unix(epoch, 0).Add(30 * time.Second)
	for range 2000 { // two seconds without a delay
		if w.gate.Enter(now, func() time.Duration { return 0 }, false) {
			w.gate.Leave()
		}
		now = now.Add(time.Millisecond)
	}
	if w.gate.Shut(time.Unix(epoch, 0)) {
		t.Error("still shut after two calm seconds")
	}
}

func TestAnOpenGateAllocatesNothing(t *testing.T) {
	g := &Gate{}
	now := time.Unix(epoch, 0)
	lag := func() time.Duration { return time.Millisecond }
	if n := testing.AllocsPerRun(1000, func() { g.Enter(now, lag, false); g.Leave() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestUnknownDelaysChangeNothing(t *testing.T) {
	g := &Gate{}
	now := time.Unix(epoch, 0)
	for range 10000 {
		now = now.Add(time.Millisecond)
		if !g.Enter(now, func() time.Duration { return -1 }, false) {
			t.Fatal("refused")
		}
	}
}

// let has n exchanges come, each after it has waited for so long, and returns how many were let in.
func let(g *Gate, now time.Time, n int, waited time.Duration) (in int) {
	for range n {
		if g.Enter(now, func() time.Duration { return waited }, true) {
			g.Leave()
			in++
		}
	}
	return in
}

func TestWhoHasWaitedTooLongIsRefusedAtOnceWhereThatIsKnown(t *testing.T) {
	g := &Gate{}
	now := feed(g, time.Unix(epoch, 0), 3*fallWindows, time.Millisecond)
	if in := let(g, now, 100, strictAlarm); in != 100 || g.Shut(now) {
		t.Fatalf("%d of 100 were let in after %v; shut is %v", in, strictAlarm, g.Shut(now))
	}
	// One in measuredOpen is looked at until one of them has waited too long.
	if in := while(g, 100, func() int { return let(g, now, 100, strictAlarm+1) }); in >= measuredOpen || !g.Shut(now) {
		t.Errorf("%d of 100 were let in after more than %v; shut is %v", in, strictAlarm, g.Shut(now))
	}
	if in := let(g, now, 100, strictWait); in != 100 {
		t.Errorf("%d of 100 were let in after %v", in, strictWait)
	}
	if in := while(g, 100, func() int { return let(g, now, 100, 3*strictWait) }); in != 0 {
		t.Errorf("%d of 100 were let in after thrice that", in)
	}
	now = now.Add(strictTime)
	if in := let(g, now, 100, 3*strictWait); in != 100 || g.Shut(now) {
		t.Errorf("when nobody has been refused for a while, %d of 100 were let in; shut is %v", in, g.Shut(now))
	}
}

// while has n exchanges under way while do runs.
func while(g *Gate, n int64, do func() int) int {
	g.inflight.Add(n)
	defer g.inflight.Add(-n)
	return do()
}

// All of a crowd that comes at once have waited too long. The node does what it can of it.
func TestOfACrowdThatIsLateAsManyAreLetInAsKeepTheNodeBusy(t *testing.T) {
	g := &Gate{}
	now := feed(g, time.Unix(epoch, 0), 3*fallWindows, time.Millisecond)
	g.rule.able = 1000 // a window
	late := func() time.Duration { return time.Second }
	for range measuredOpen {
		g.Enter(now, late, true)
	}
	g.inflight.Store(0)
	in := 0
	for range 1000 {
		if g.Enter(now, late, true) {
			in++
		}
	}
	if want := 1000 * int(leastWork) / int(window); in != want {
		t.Errorf("%d are under way, want %d, what is done in %v", in, want, leastWork)
	}
	if !g.Shut(now.Add(strictTime - 1)) {
		t.Error("the gate opened")
	}
}

// One pause makes all late that come in it. A node that has little to do takes them on.
func TestWhoIsLateOnAQuietNodeIsLetIn(t *testing.T) {
	g := &Gate{}
	now := feed(g, time.Unix(epoch, 0), 3*fallWindows, time.Millisecond)
	in := while(g, leastLimit-1, func() int { return let(g, now, 100, time.Second) })
	if in != 100 || g.Shut(now) {
		t.Errorf("%d of 100 were let in; shut is %v", in, g.Shut(now))
	}
}

func TestAClockThatIsSetBackDoesNotKeepTheGateStrict(t *testing.T) {
	g := &Gate{}
	now := feed(g, time.Unix(epoch, 0), 3*fallWindows, time.Millisecond)
	if while(g, 100, func() int { return let(g, now, 100, time.Second) }); !g.Shut(now) {
		t.Fatal("the gate is not strict")
	}
	now = now.Add(-time.Hour)
	if in := let(g, now, 100, 3*strictWait); in != 100 || g.Shut(now) {
		t.Errorf("an hour back, %d of 100 were let in; shut is %v", in, g.Shut(now))
	}
}

// As long as a crowd waits for its refusals the gate stays strict, though nobody is refused.
func TestTheGateStaysStrictWhileACrowdWaits(t *testing.T) {
	for _, c := range []struct {
		waiting int // to 10,000 exchanges a second
		strict  bool
	}{{1000, true}, {100, false}} {
		g := &Gate{}
		now := feed(g, time.Unix(epoch, 0), 3*fallWindows, time.Millisecond)
		while(g, 100, func() int { return let(g, now, 100, time.Second) })
		for range c.waiting {
			g.Hold()
		}
		for range 3 * strictTime / (window / 1000) {
			let(g, now, 1, 0)
			now = now.Add(window / 1000)
		}
		if g.Shut(now) != c.strict {
			t.Errorf("%d wait: strict is %v", c.waiting, g.Shut(now))
		}
	}
}

// Clients that each wait for their answer make a queue as long as there are clients. Few are
// let in after it has been worked off once.
func TestAFewClosedLoopClientsAreRefusedOnceAtMost(t *testing.T) {
	w := at(10, 200)
	w.period, w.exact, w.cost = paced, true, cost/4
	if r := w.run(20 * time.Second); r.refused > 0 {
		t.Errorf("%d of %d were refused in the second half", r.refused, r.served)
	}
}

func TestARefusalWaitsLongerTheMoreThereAre(t *testing.T) {
	g := &Gate{}
	feed(g, time.Unix(epoch, 0), 3*fallWindows, time.Millisecond) // a hundred a window
	first, _ := g.Hold()
	for range 1000 {
		g.Hold()
	}
	last, _ := g.Hold()
	if first > leastHold*5/4 || last < mostHold*3/4 {
		t.Errorf("the first waits %v, the last of a thousand %v", first, last)
	}
	for range mostHeld {
		if _, ok := g.Hold(); !ok {
			return
		}
	}
	t.Error("any number may wait")
}

func TestMoreGoOnEarlyTheLongerTheNodeHasTime(t *testing.T) {
	idle := false
	g := &Gate{Idle: func() bool { return idle }}
	now := feed(g, time.Unix(epoch, 0), 3*fallWindows, time.Millisecond)
	while(g, 100, func() int { return let(g, now, 100, time.Second) })
	g.Early(now, 1000) // sees that some were refused
	while(g, 100, func() int { return let(g, now, 100, time.Second) })
	if n := g.Early(now, 1000); n != 0 {
		t.Errorf("%d go on early while others are refused", n)
	}
	let(g, now, 2*measuredOpen, 0)
	var all []int
	for range 4 {
		all = append(all, g.Early(now, 1000))
	}
	if !slices.Equal(all, []int{1, 3, 6, 6}) { // a hundred a window are five a tick
		t.Errorf("%v go on early", all)
	}
	while(g, 100, func() int { return let(g, now, 100, time.Second) })
	let(g, now, 2*measuredOpen, 0)
	idle = true
	if n := g.Early(now, 1000); n == 0 {
		t.Error("nobody goes on early though the quota is not used")
	}
}

// If all wait for their refusals nobody comes whose delay could be measured: the last one that
// was says nothing.
func TestSomeGoOnEarlyThoughNobodyComes(t *testing.T) {
	g := &Gate{}
	now := feed(g, time.Unix(epoch, 0), 3*fallWindows, time.Millisecond)
	now = now.Add(time.Second)
	while(g, 100, func() int { return let(g, now, 100, time.Second) })
	g.Early(now, 1000)
	if n := g.Early(now.Add(roomTick), 1000); n != 0 {
		t.Errorf("%d go on early just after a delay of a second", n)
	}
	if n := g.Early(now.Add(lagLast+1), 1000); n == 0 {
		t.Error("nobody goes on early though nothing is to be done")
	}
}

// The counts are not read at one time: more may have been refused than had been seen.
func TestWhatANodeIsAbleToDoIsNeverNegative(t *testing.T) {
	c := controller{able: 100}
	for i := range uint64(100) {
		c.step(counts{seen: i, refused: 10 * i}, 1)
		c.from = counts{seen: i, refused: 10 * i}
	}
	if c.able < 0 || c.able > 100 {
		t.Errorf("able to do %v a window", c.able)
	}
}

func BenchmarkOpenGate(b *testing.B) {
	g := &Gate{}
	now := time.Unix(epoch, 0)
	lag := func() time.Duration { return 0 }
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.Enter(now, lag, false)
			g.Leave()
		}
	})
}

// A node can do less for many clients that take turns than for few: what it did before is no
// sign that something else makes the delay.
func TestANodeThatDoesLessForManyStillSheds(t *testing.T) {
	w := at(0.9, 64)
	w.period = paced
	w.run(10 * time.Second)
	w.cost = 3 * cost
	w.conns = 1000
	w.follow(1.5)
	r := w.run(10 * time.Second)
	if r.refused == 0 || r.p99 > 100*time.Millisecond {
		t.Errorf("%d served, %d refused, p99 %v, bound %d", r.served, r.refused, r.p99, w.gate.limit.Load())
	}
}
