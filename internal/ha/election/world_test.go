package election

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"time"

	"proxyd/internal/clock"
)

var (
	seedFlag   = flag.Int64("seed", -1, "replay the one random world of this seed, with a trace")
	worldsFlag = flag.Int("worlds", 2000, "how many random worlds to try")
)

const (
	lease = 240 * time.Millisecond
	guard = 30 * time.Millisecond
	beat  = 40 * time.Millisecond

	// settle is how long after the last disturbance two of a pair may still both hold.
	settle = 2 * (lease + guard)
	// drift is how far a clock may be off, so that two are within guard/lease of another.
	drift = 0.05
)

// world is a cluster of machines under one true clock, with everything that can go
// wrong: drifting clocks, lost, late and doubled messages, cuts in one or both
// directions, crashes without memory, frozen processes, hand-overs, sick nodes.
type world struct {
	r      *rand.Rand
	now    time.Duration // true time
	queue  queue
	seq    int
	nodes  []*node
	mesh   map[[2]int]bool // cut: what the first sends does not reach the second
	lan    map[[2]int]bool // the same for the network of the address
	loss   float64
	late   float64       // part of the messages that come very late
	unwell time.Duration // latest instant at which something was cut or frozen
	term   uint64        // highest that held
	mutant mutant
	trace  func(format string, args ...any)
	fail   string

	held  time.Duration // true time during which someone held
	empty time.Duration // true time during which nobody accepted, not even one that yielded
	moved int           // hand-overs
	lastH int

	arbiter  bool // a pair has one
	changing bool // the voters change
	paired   bool // there were once two of them
}

// mutant takes one rule out, at the edge of the machine: nothing in the machine knows.
type mutant struct {
	name    string
	config  func(w *world, c *Config)
	deliver func(n *node, from ID, msg *Msg)
	acts    func(n *node, ev Event, acts []Action) []Action
	gone    bool // a peer that is only cut off is reported as gone
	goneNow bool // a late report of a gone peer says that it is of now
	permit  bool // every permit is given
	blind   bool // a permit without a sign of life of the arbiter
	forgets bool // an upgrade forgets what was promised, and owes no silence
	rates   float64
	from    uint64 // the worlds before are not tried: they take long to find a rare thing

	forgetsList bool // a change of the voters forgets what was promised, and owes no silence
}

type node struct {
	w      *world
	i      int
	m      *Machine
	conf   Config
	rate   float64
	boot   time.Duration // true time at which its clock showed offset
	offset clock.Instant
	life   int // counts its processes
	down   bool
	thaw   time.Duration // true time until which it does not run
	busy   bool          // does actions
	inbox  []Event
	timer  int
	due    time.Duration // what the timer is set to
	listed time.Duration // true time at which it got its list of voters; 0: it always had it
	ill    Ill
	deaf   bool
	deafAt time.Duration
	away   bool // reaches no arbiter

	forlornAt time.Duration // when it last reached it, or heard the other of a pair

	until  time.Duration // true time until which it answers for the address
	parked time.Duration // true time until which it still accepts, silent
	permit bool          // holds by a permit that the network really gave
}

func (n *node) local(t time.Duration) clock.Instant {
	return n.offset + clock.Instant(float64(t-n.boot)*n.rate)
}

func (n *node) real(i clock.Instant) time.Duration {
	return n.boot + time.Duration(float64(i-n.offset)/n.rate)
}

func (n *node) holds() bool { return n.w.now < n.until }

func newWorld(seed uint64, size int, mu mutant) *world {
	w := &world{
		r:    rand.New(rand.NewPCG(seed, 1)),
		mesh: map[[2]int]bool{}, lan: map[[2]int]bool{},
		trace: func(string, ...any) {}, mutant: mu, lastH: -1,
	}
	var ids []ID
	for i := range size {
		ids = append(ids, ID(rune('a'+i)))
	}
	d := drift
	if mu.rates > 0 {
		d = mu.rates
	}
	w.arbiter = size == 2 && w.r.IntN(2) == 0
	voters := ids
	if size > 2 && w.r.IntN(2) == 0 {
		voters = ids[:size-1] // the last one may come while all is under way
	}
	w.paired = len(voters) == 2
	for i := range size {
		n := &node{w: w, i: i, rate: 1 + d*(2*w.r.Float64()-1), offset: clock.Instant(w.r.Int64N(int64(time.Hour)))}
		n.conf = Config{Self: ids[i], Voters: voters, Lease: lease, Guard: guard, Beat: beat, Quiet: true}
		if w.r.IntN(4) == 0 {
			n.conf.Preempt = time.Second
		}
		n.conf.Witness = size > 2 && i == size-1 && w.r.IntN(4) == 0
		w.nodes = append(w.nodes, n)
		n.down = true
		w.at(w.upTo(lease), n.start)
	}
	return w
}

func (w *world) at(t time.Duration, do func()) {
	w.seq++
	w.queue.push(item{max(t, w.now), w.seq, do})
}

// upTo returns a random duration below d.
func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.r.Int64N(int64(d))) }

// whole reports whether nothing is cut and nobody frozen at this instant.
func (w *world) whole() bool {
	for _, n := range w.nodes {
		if w.now < n.thaw {
			return false
		}
	}
	return len(w.mesh) == 0 && len(w.lan) == 0
}

// start begins a life of the node's process.
func (n *node) start() {
	if !n.down || !n.votes() {
		return
	}
	n.down, n.busy, n.inbox, n.deaf = false, false, nil, false
	if n.ill != drained { // it stays so over its processes
		n.ill = Well
	}
	n.life++
	n.due = -1
	c := n.conf
	if n.w.mutant.config != nil {
		n.w.mutant.config(n.w, &c)
	}
	n.m = New(n.local(n.w.now), c)
	n.w.trace("%s starts", n.conf.Self)
	n.event(Fitness{n.ill})
	n.clock()
}

// crash ends the process. The kernel takes the address away.
func (n *node) crash(host bool) {
	w := n.w
	if n.down {
		return
	}
	w.trace("%s crashes, host %v", n.conf.Self, host)
	n.down = true
	n.conf.Term = max(n.conf.Term, n.m.View().Term) // reserved on disk
	n.until, n.parked, n.permit, n.thaw = w.now, w.now, false, min(n.thaw, w.now)
	back := w.now + w.upTo(4*lease)
	if w.r.IntN(3) == 0 {
		back = w.now + w.upTo(beat/4)
	}
	if host {
		n.offset, n.boot = clock.Instant(w.r.Int64N(int64(time.Second))), w.now
	}
	life := n.life
	for _, o := range w.nodes {
		// The lifeline's end: a reconnect is refused while no process listens. After a
		// power failure that is only so when the kernel is back.
		if o == n || o.down || w.r.IntN(8) == 0 {
			continue
		}
		refused := w.now + time.Millisecond + w.upTo(3*time.Millisecond)
		if host {
			refused = w.now + w.upTo(2*lease)
		}
		told := refused + w.upTo(time.Millisecond)
		if w.r.IntN(5) == 0 {
			told += w.upTo(4 * lease)
		}
		at, olife := clock.Instant(0), o.life
		w.at(refused, func() {
			if n.life == life && !w.mesh[[2]int{n.i, o.i}] && !w.mesh[[2]int{o.i, n.i}] {
				at = o.local(w.now)
			}
		})
		w.at(told, func() {
			if at != 0 && o.life == olife {
				if w.mutant.goneNow {
					at = 0
				}
				o.event(Gone{Peer: n.conf.Self, At: at})
			}
		})
	}
	w.at(back, n.start)
}

// clock sets the timer for the machine's deadline.
func (n *node) clock() {
	due := n.real(n.m.Deadline()) + 1
	if n.due == due && due > n.w.now {
		return // set already
	}
	n.due = due
	n.timer++
	timer := n.timer
	n.w.at(due, func() {
		if timer == n.timer && !n.down {
			n.event(Tick{})
		}
	})
}

// event puts ev in the node's inbox; its one loop takes it in turn.
func (n *node) event(ev Event) {
	if n.down {
		return
	}
	n.inbox = append(n.inbox, ev)
	n.run()
}

// live does f now, or when the node runs again, unless this life has ended by then.
func (n *node) live(after time.Duration, f func()) {
	life := n.life
	var try func()
	try = func() {
		switch {
		case n.down || n.life != life:
		case n.w.now < n.thaw:
			n.w.at(n.thaw, try)
		default:
			f()
		}
	}
	n.w.at(n.w.now+after, try)
}

func (n *node) run() {
	if n.busy || n.down || len(n.inbox) == 0 {
		return
	}
	if n.w.now < n.thaw {
		n.busy = true
		n.live(n.thaw-n.w.now, func() { n.busy = false; n.run() })
		return
	}
	ev := n.inbox[0]
	n.inbox = n.inbox[1:]
	if r, ok := ev.(Received); ok {
		if n.w.mutant.deliver != nil {
			n.w.mutant.deliver(n, r.From, &r.Msg)
			ev = r
		}
	}
	acts := n.m.Step(n.local(n.w.now), ev)
	if n.w.mutant.acts != nil {
		acts = n.w.mutant.acts(n, ev, acts)
	}
	n.clock()
	n.busy = true
	n.act(acts)
}

// act does the actions one after the other; some take time, and the process can be
// frozen in between.
func (n *node) act(acts []Action) {
	if len(acts) == 0 {
		n.busy = false
		n.run()
		return
	}
	w, a, rest := n.w, acts[0], acts[1:]
	took := time.Duration(0)
	switch a.(type) {
	case Hold:
		took = w.upTo(time.Millisecond)
	case Drop, Yield:
		took = w.upTo(3 * time.Millisecond)
	case Send:
		n.effect(a)
		n.act(rest)
		return
	}
	n.live(took, func() {
		n.effect(a)
		n.act(rest)
	})
}

func (n *node) effect(a Action) {
	w := n.w
	switch a := a.(type) {
	case Send:
		w.send(n, a)
	case Hold:
		if !n.holds() {
			w.trace("%s holds, term %d, %s", n.conf.Self, a.Term, a.Reason)
		}
		if t := n.real(a.Until); t > w.now {
			w.holding(n, a)
			n.until, n.parked = max(n.until, t), 0
		}
	case Yield:
		w.trace("%s yields to %s, %s", n.conf.Self, a.To, a.Reason)
		w.moved++
		n.until, n.parked, n.permit = w.now, w.now+5*time.Second, false
	case Drop:
		w.trace("%s drops, %s", n.conf.Self, a.Reason)
		n.until, n.parked, n.permit = w.now, 0, false
	case WantPermit:
		life := n.life
		if w.r.IntN(10) == 0 {
			return // never answered
		}
		w.at(w.now+w.upTo(2*beat), func() {
			truth := w.permit(n, w.nodes[a.Peer[0]-'a'], a.Keep)
			ok := truth || w.mutant.permit
			w.trace("%s permit %d, keep %v: %v", n.conf.Self, a.Round, a.Keep, ok)
			if n.life == life {
				n.permit = n.permit || truth && !a.Keep
				n.event(Permit{Round: a.Round, Ok: ok})
			}
		})
	}
}

// permit is what the network of the address truly shows to n.
func (w *world) permit(n, o *node, keep bool) bool {
	if n.deaf || w.arbiter && n.away && !w.mutant.blind {
		return false
	}
	if keep {
		return true
	}
	cut := w.lan[[2]int{n.i, o.i}] || w.lan[[2]int{o.i, n.i}]
	return o.down || w.now < o.thaw || cut
}

// holding checks the safety of a Hold.
func (w *world) holding(n *node, a Hold) {
	for _, o := range w.nodes {
		if o == n || !o.holds() || w.fail != "" {
			continue
		}
		if (n.permit || o.permit) && w.now-w.unwell <= settle {
			continue
		}
		w.fail = fmt.Sprintf("at %v %s holds, term %d, while %s does until %v", w.now, n.conf.Self, a.Term, o.conf.Self, o.until)
	}
	if n.conf.Witness && w.fail == "" {
		w.fail = fmt.Sprintf("at %v %s holds, a witness", w.now, n.conf.Self)
	}
	if n.i != w.lastH {
		if !w.paired && a.Term <= w.term && w.fail == "" { // a pair that was cut and held twice knows no order
			w.fail = fmt.Sprintf("at %v %s holds with term %d, not above %d", w.now, n.conf.Self, a.Term, w.term)
		}
	}
	w.lastH, w.term = n.i, max(w.term, a.Term)
}

func (w *world) send(n *node, s Send) {
	o := w.nodes[s.To[0]-'a']
	for range 1 + w.r.IntN(10)/9 { // now and then doubled
		if w.mesh[[2]int{n.i, o.i}] || w.r.Float64() < w.loss {
			continue
		}
		d := 100*time.Microsecond + w.upTo(3*time.Millisecond)
		if w.r.Float64() < w.late {
			d = w.upTo(3 * lease)
		}
		from := n.conf.Self
		w.at(w.now+d, func() { o.event(Received{from, s.Msg}) })
	}
}

// trouble makes something go wrong, and comes again.
func (w *world) trouble(until time.Duration) {
	if w.now >= until {
		w.heal()
		return
	}
	n := w.nodes[w.r.IntN(len(w.nodes))]
	if h := w.holder(); h != nil && w.r.IntN(2) == 0 {
		n = h
	}
	o := w.nodes[(n.i+1+w.r.IntN(len(w.nodes)-1))%len(w.nodes)]
	switch w.r.IntN(18) {
	case 0, 1, 2:
		n.crash(w.r.IntN(4) == 0)
	case 3:
		n.thaw = w.now + w.upTo(3*lease)
		w.trace("%s frozen until %v", n.conf.Self, n.thaw)
	case 4:
		w.cut(n, o, true, true, true)
	case 5:
		w.cut(n, o, w.r.IntN(2) == 0, true, false)
	case 6:
		w.cut(n, o, true, false, w.r.IntN(2) == 0)
	case 7:
		for _, o := range w.nodes {
			w.cut(n, o, true, true, true)
		}
	case 8, 9:
		w.trace("all cuts heal")
		clear(w.mesh)
		clear(w.lan)
	case 10:
		n.ill = []Ill{Well, Well, 20, drained, 200}[w.r.IntN(5)]
		w.trace("%s ill %d", n.conf.Self, n.ill)
		n.event(Fitness{n.ill})
	case 11, 12:
		w.trace("%s is told to hand over", n.conf.Self)
		n.event(HandOver{To: []ID{"", o.conf.Self}[w.r.IntN(2)], Chosen: w.r.IntN(2) == 0, Last: w.r.IntN(4) == 0})
	case 13:
		n.deaf, n.deafAt = !n.deaf && !n.down, w.now
		w.trace("%s deaf %v", n.conf.Self, n.deaf)
		n.event(Deaf{n.deaf})
	case 14, 15:
		n.upgrade()
	case 16:
		w.revote()
		n.away = !n.away
	case 17:
		w.trace("%s has another wish", n.conf.Self)
		n.event(Wish{Preempt: time.Duration(w.r.IntN(2)) * time.Second, Witness: n.conf.Witness})
		n.event(Pause{On: w.r.IntN(2) == 0})
	}
	w.at(w.now+w.upTo(2*lease), func() { w.trouble(until) })
}

// cut keeps what n sends from o, and with both what o sends from n.
func (w *world) cut(n, o *node, mesh, lan, both bool) {
	if n == o {
		return
	}
	w.trace("cut %s-%s mesh %v lan %v both %v", n.conf.Self, o.conf.Self, mesh, lan, both)
	for _, d := range [][2]int{{n.i, o.i}, {o.i, n.i}} {
		if mesh {
			w.mesh[d] = true
		}
		if lan {
			w.lan[d] = true
		}
		if !both {
			break
		}
	}
	if w.mutant.gone && mesh {
		n.event(Gone{Peer: o.conf.Self})
		o.event(Gone{Peer: n.conf.Self})
	}
}

// heal makes all well.
func (w *world) heal() {
	w.trace("all is well again")
	clear(w.mesh)
	clear(w.lan)
	w.late = 0
	w.loss = min(w.loss, 0.05)
	for _, n := range w.nodes {
		n.thaw = min(n.thaw, w.now)
		if n.deaf, n.away = false, false; n.ill != drained { // that ends by an operator alone
			n.ill = Well
		}
		n.event(Fitness{n.ill})
		n.event(Deaf{false})
		n.event(Pause{})
	}
}

func (w *world) holder() *node {
	for _, n := range w.nodes {
		if n.holds() {
			return n
		}
	}
	return nil
}

// run lets true time pass.
func (w *world) run(d time.Duration) {
	end := w.now + d
	for len(w.queue) > 0 && w.queue[0].at <= end && w.fail == "" {
		it := w.queue.pop()
		w.pass(it.at)
		it.do()
	}
	if w.fail == "" {
		w.pass(end)
	}
}

// pass moves the true time on and accounts for it.
func (w *world) pass(to time.Duration) {
	if !w.whole() {
		w.unwell = to
	}
	held, accepted, holders := w.now, w.now, 0
	for _, n := range w.nodes {
		w.forlorn(n)
		held = max(held, min(n.until, to))
		accepted = max(accepted, min(max(n.until, n.parked), to))
		if n.until > to {
			holders++
			if n.deaf && to-max(n.deafAt, n.thaw) > lease+beat && w.fail == "" {
				w.fail = fmt.Sprintf("at %v %s holds though deaf", to, n.conf.Self)
			}
		}
	}
	w.held += held - w.now
	w.empty += to - accepted
	w.now = to
	if holders > 1 && to-w.unwell > settle && w.fail == "" {
		w.fail = fmt.Sprintf("at %v %d hold, %v after the heal", to, holders, to-w.unwell)
	}
}

// play runs one random world: trouble, then a time in which all must become well.
func play(seed uint64, mu mutant, trace func(string, ...any)) *world {
	w := newWorld(seed, 2+int(seed%4), mu)
	w.loss = []float64{0, 0.05, 0.3}[w.r.IntN(3)]
	w.late = []float64{0, 0.1}[w.r.IntN(2)]
	if trace != nil {
		w.trace = func(format string, args ...any) { trace("%9.6f "+format, append([]any{w.now.Seconds()}, args...)...) }
	}
	w.at(2*lease, func() { w.trouble(5 * time.Second) })
	w.run(7500 * time.Millisecond)
	if w.fail != "" {
		return w
	}
	w.moved, w.held = 0, 0
	w.run(time.Second)
	// Each hand-over that falls in it may lose its messages, until it is taken back.
	least := time.Second - beat - time.Duration(w.moved*giveBeats)*beat
	if w.fail == "" && (w.held < least || w.holder() == nil && w.moved == 0) {
		w.fail = fmt.Sprintf("held for %v of the last second, in spite of two seconds and more without trouble", w.held)
	}
	if h := w.holder(); h != nil && h.ill == drained && w.fail == "" {
		if o := h.better(); o != nil {
			w.fail = fmt.Sprintf("%s holds though it is drained, and %s is well", h.conf.Self, o.conf.Self)
		}
	}
	return w
}

// drained is how ill a node is that an operator took out: it holds only where nobody else can.
const drained Ill = 99

// better returns a node that a drained holder should have given the address to by now, nil if
// there is none. One that it gave it to in vain it leaves alone for a while.
func (n *node) better() *node {
	for _, o := range n.w.nodes {
		if o == n || o.down || !o.votes() || o.conf.Witness || o.ill != Well {
			continue
		}
		if p := n.m.peer(o.conf.Self); p != nil && n.m.able(p) && n.m.now >= p.avoid {
			return o
		}
	}
	return nil
}

// TestOneHolder: whatever happens, never two holders with a majority; of a pair only
// where the network gave a permit, and not for long after the heal; and once the
// trouble is over, somebody holds.
func TestOneHolder(t *testing.T) {
	if *seedFlag >= 0 {
		if w := play(uint64(*seedFlag), mutant{}, t.Logf); w.fail != "" {
			t.Fatalf("seed %d: %s", *seedFlag, w.fail)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // worlds are small and short-lived
	var held, total time.Duration
	for seed := range uint64(*worldsFlag) {
		w := play(seed, mutant{}, nil)
		if w.fail != "" {
			t.Fatalf("%s\nreplay it: go test -run TestOneHolder -v ./internal/ha/election -seed %d", w.fail, seed)
		}
		held += w.held
		total += time.Second
	}
	t.Logf("%d worlds of 8.5 s", *worldsFlag)
}
