package engine

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
)

// A loop owns its connections: one goroutine does all that is done with them. It has an
// epoll for them, and the epoll itself is with Go's poller, so that a loop with nothing
// to do is a parked goroutine like any other: no thread is held, and collector and
// scheduler go on as usual. Nothing in a loop blocks.
//
// Between the two stands a gate, an epoll with the first as its only member. While the
// loop is busy the gate is shut: else each event would wake a thread that waits in Go's
// poller, only to find that the loop is running already.
type loop struct {
	engine *Loop
	index  int
	ep     int
	gate   int
	shut   bool
	last   moment   // when there was an event
	brisk  bool     // it came soon after the one before
	file   *os.File // of gate, for Go's poller
	armed  moment   // when file wakes us; 0 is never
	over   bool     // to end
	turns  uint64
	parks  uint64 // times that it waited in Go's poller

	table   []*loopWire // by descriptor
	gen     uint32      // of the last wire
	wheel   wheel
	again   []leftover  // for the next turn
	shakes  []leftover  // handshakes of which a step is due
	left    []leftover  // of the last turn
	busy    *loopClient // whose matter is being seen to
	at      int         // the next of events
	rang    bool        // there is mail
	cutOff  bool        // connections are closed by force
	swept   moment
	emptied moment // when kept connections were given up

	events       [256]unix.EpollEvent
	in, out, rsp []byte // scratch: what is read from a client, written to anyone, read from a server
	clients      []*loopClient
	servers      []*loopServer
	trays        []*tray
	shakers      []*shaker // that have nothing to do
	shaking      int       // shakers that have
	spare        [][]byte  // for rsp
	homes        map[*dataplane.Server]*home

	batch batch
	queue queue
	pin   pin

	bell int // an eventfd, rung when there is post
	mu   sync.Mutex
	mail []func() // for the loop, in order
	rung bool     // the bell was rung for it
	deaf bool     // nothing is taken any more
}

// slowBatch is how long a loop may be busy at a stretch. Whoever is behind in the batch
// waits as long.
const slowBatch = time.Millisecond

func newLoop(e *Loop, index int) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, os.NewSyscallError("eventfd", err)
	}
	gate, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		unix.Close(ep)
		unix.Close(bell)
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(gate, true) // so that os takes it for something to wait for
	l := &loop{
		engine: e, index: index, ep: ep, gate: gate, bell: bell, file: os.NewFile(uintptr(gate), "epoll"),
		in: make([]byte, bufferBytes), out: make([]byte, 0, 2*bufferBytes), rsp: make([]byte, bufferBytes),
		homes: map[*dataplane.Server]*home{},
	}
	l.wheel.at = tickOf(now())
	if e.side.conf.Batch > 0 {
		if l.batch.ring, err = newRing(); err != nil && index == 0 {
			e.side.conf.Logger.Info("event loops make each system call by itself", "reason", err)
		}
	}
	e1 := watch(ep, int32(bell), 0, unix.EPOLLIN|unix.EPOLLET)
	if e2 := watch(gate, int32(ep), 0, unix.EPOLLIN); e1 != 0 || e2 != 0 {
		l.close()
		return nil, os.NewSyscallError("epoll_ctl", max(e1, e2))
	}
	return l, nil
}

// close takes no more mail, sees to what had come and frees what the loop has.
func (l *loop) close() {
	l.mu.Lock()
	l.deaf, l.rang = true, true
	l.mu.Unlock()
	for !l.turn(0, now()) {
	}
	for _, k := range l.shakers {
		k.stop()
	}
	l.batch.ring.close()
	l.pin.free()
	unix.Close(l.bell)
	unix.Close(l.ep)
	l.file.Close()
}

// run is the loop's goroutine. It ends when the engine is shut down.
func (l *loop) run() {
	defer l.close()
	l.pin = newPin(l.index, l.engine.side.conf.Loops)
	l.pin.may = l.dismissShakers
	raw, err := l.file.SyscallConn()
	for err == nil && !l.over {
		// Read calls step when the epoll has become readable, and parks in between.
		if err = raw.Read(l.step); errors.Is(err, os.ErrDeadlineExceeded) {
			l.armed = 0
			err = l.file.SetReadDeadline(time.Time{})
		}
	}
	if err != nil {
		l.engine.side.conf.Panic(err) // the runtime has no poller: nothing works
	}
}

// step works off what there is. It returns false to be called again.
func (l *loop) step(uintptr) bool {
	woken := true // from Go's poller
	for wait := time.Duration(0); ; l.turns++ {
		n := ready(l.ep, l.events[:], wait)
		more := n == len(l.events)
		began := now()
		paced := l.engine.patient && l.engine.pacer.on()
		if paced || l.queue.some() {
			n = l.line(n, began)
			more = more || l.queue.some()
		} else {
			l.queue.turned = 0
		}
		l.weed(n)
		l.fetch(n)
		for l.at = 0; !l.turn(n, began); {
		}
		if now()-began > moment(slowBatch) {
			l.engine.slow.Add(1)
		}
		if l.over {
			return true
		}
		if paced && n > 0 {
			rest := l.engine.pacer.rest(now(), cpuTime())
			l.queue.rested = moment(rest)
			restFor(rest)
		}
		wait = l.patience(n, began)
		switch {
		case len(l.again) > 0 || len(l.shakes) > 0 || more:
			wait = 0
		case wait > 0, l.shut && n > 0, n >= busyBatch:
			l.setGate(true)
		case l.shut:
			// Of what comes from now on the gate tells, of what came while it was shut perhaps not: to the
			// kernel it may have been ready all along. So that is looked for once more.
			l.setGate(false)
			wait = 0
		default:
			l.arm()
			l.parks++
			return false
		}
		if woken && l.engine.side.some() {
			l.engine.relief.call()
		}
		woken = false
	}
}

// mostPatience is how long a loop waits for events by itself.
const mostPatience = 4 * time.Millisecond

// patience returns how long the loop is to wait for events by itself after it has seen to
// n of them: 0 is not at all, but to park. While events come at short intervals, to park
// and to be woken through Go's poller would cost more than all that is done about a
// request. A loop that waits by itself keeps its P, since to give that up is what costs:
// so there must be others (Loop.patient), and the wait is short. Signals end it, and with
// them whatever the runtime wants of all Ps.
func (l *loop) patience(n int, at moment) time.Duration {
	if n > 0 {
		l.brisk = at-l.last < moment(mostPatience)
		l.last = at
	}
	left := l.last + moment(mostPatience) - at
	if !l.brisk || !l.engine.patient || left <= 0 {
		return 0
	}
	if due := l.wheel.next(); due != 0 {
		left = min(left, max(due-at, 1))
	}
	return spanOf(left)
}

// busyBatch is how many events at once show that more will come while they are seen to.
const busyBatch = 2

// setGate shuts the gate, or opens it.
func (l *loop) setGate(shut bool) {
	if l.shut == shut {
		return
	}
	l.shut = shut
	events := uint32(unix.EPOLLIN)
	if shut {
		events = 0
	}
	rewatch(l.gate, int32(l.ep), events)
}

// arm sees to it that Read returns when a wire is due. As the deadlines of a wire, this
// one is only ever moved nearer.
func (l *loop) arm() {
	due := l.wheel.next()
	if len(l.homes) > 0 {
		due = first(due, l.swept+moment(l.engine.side.conf.Sweep))
	}
	if due != 0 && (l.armed == 0 || due < l.armed) {
		l.armed = due
		l.file.SetReadDeadline(due.time())
	}
}

// turn sees to n events, to the mail, to whoever is due and to what was left from the
// last turn. It returns false if there was a panic: then it is called again.
func (l *loop) turn(n int, t moment) bool {
	defer l.recovered()
	for l.at < n {
		ev := &l.events[l.at]
		l.at++
		l.event(ev.Fd, uint32(ev.Pad), readiness(ev.Events))
	}
	l.flush()
	l.batch.on = l.batch.ring != nil && l.rang && !l.cutOff // many may be resumed at once
	for l.rang {
		if do := l.letter(); do != nil {
			do()
		}
	}
	for w := l.wheel.pop(t); w != nil; w = l.wheel.pop(t) {
		l.due(w, t)
	}
	l.sweep(t)
	if len(l.left) == 0 {
		l.left, l.again = l.again, l.left
	}
	for len(l.left) > 0 {
		last := len(l.left) - 1
		r := l.left[last]
		l.left = l.left[:last]
		if r.wire.queued && r.wire.gen == r.gen {
			r.wire.queued = false
			l.goOn(r.wire)
		}
	}
	l.shakeSome()
	l.flush()
	return true
}

// weed ends the idle connections to servers of which n events tell something. It comes
// before all else: what is said on one that no request is at must not become the answer
// to a request of the same batch.
func (l *loop) weed(n int) {
	if n < 2 {
		return
	}
	for i := range l.events[:n] {
		ev := &l.events[i]
		if ev.Pad == 0 || readiness(ev.Events)&(canRead|ended|broken) == 0 {
			continue
		}
		if w := l.table[ev.Fd]; w != nil && w.gen == uint32(ev.Pad) && w.server != nil && w.server.user == nil {
			l.dropIdle(w.server)
		}
	}
}

// event gives an event to whom it is for.
func (l *loop) event(fd int32, gen uint32, what readiness) {
	if gen == 0 {
		l.rang = true
		return
	}
	w := l.table[fd]
	if w == nil || w.gen != gen {
		return // closed earlier in this batch
	}
	if what&(canRead|ended|broken) != 0 {
		w.ready = true
		if w.client != nil && w.client.tls != nil && w.client.shake == nil {
			w.client.tls.feed.drained = false
		}
	}
	if what&(ended|broken) != 0 {
		w.ended = true
		w.broken = w.broken || what&broken != 0
	}
	switch {
	case w.client != nil:
		l.busy = w.client
		l.clientEvent(w.client, what)
	case w.server != nil:
		l.busy = w.server.user
		l.serverEvent(w.server, what)
	default:
		l.accept(w.door)
	}
	l.busy = nil
}

// due is for a wire whose time has come.
func (l *loop) due(w *loopWire, t moment) {
	switch {
	case w.client != nil:
		l.busy = w.client
		l.clientDue(w.client, t)
		l.busy = nil
	case w.server != nil:
		l.serverDue(w.server)
	default:
		l.reopen(w.door)
	}
}

// goOn is for a wire that has something left to do though nothing happens to it.
func (l *loop) goOn(w *loopWire) {
	if w.door != nil {
		l.accept(w.door)
		return
	}
	c := w.client
	l.busy = c
	switch c.phase {
	case phaseIdle:
		l.hear(c)
	case phaseAwait:
		l.upload(c)
	case phaseRelay:
		t := c.tray
		if t.up.on {
			l.upload(c)
		}
		if c.tray == t && c.phase == phaseRelay && t.server != nil {
			l.pump(c)
		}
	}
	l.busy = nil
}

// later has goOn called in the next turn.
func (l *loop) later(w *loopWire) {
	if !w.queued {
		w.queued = true
		l.again = append(l.again, leftover{w, w.gen})
	}
}

// A leftover is a wire with work left, as long as it is that wire.
type leftover struct {
	wire *loopWire
	gen  uint32
}

// recovered ends the exchange in which the handler panicked, and its connection. The
// loop goes on.
func (l *loop) recovered() {
	p := recover()
	if p == nil {
		return
	}
	c := l.busy
	l.busy = nil
	l.engine.side.conf.Panic(p)
	if c != nil {
		l.abandon(c)
	}
}

// post has do called by the loop, soon. Anyone may call it. It returns false if the loop
// has ended.
func (l *loop) post(do func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf {
		return false
	}
	l.mail = append(l.mail, do)
	if !l.rung {
		l.rung = true
		one := [8]byte{1}
		_, _ = unix.Write(l.bell, one[:]) // it cannot be full
	}
	return true
}

// letter returns the next of the mail, or nil when that was all.
func (l *loop) letter() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mail) == 0 {
		l.rang, l.rung, l.mail = false, false, nil
		return nil
	}
	do := l.mail[0]
	l.mail[0] = nil
	l.mail = l.mail[1:]
	return do
}

// A loopWire is a socket of a loop: a connection of a client or of a server, or a door.
type loopWire struct {
	fd     int32
	gen    uint32      // tells it from others that had the same descriptor
	client *loopClient // what it is: one of these is set
	server *loopServer
	door   *loopDoor

	ready   bool  // there may be something to read
	ended   bool  // the other side has closed its half
	broken  bool  // or all
	queued  bool  // in again
	joined  bool  // what it has to write waits for the rest of the batch
	fetched int16 // where in the batch what it has to read lies, from 1 on; 0: not there

	lined readiness // what has happened since it is in the queue; 0: it is not

	inWheel    bool
	slot       int64  // in the wheel, if it is in
	due        moment // when it is to be woken; 0 is never
	prev, next *loopWire
}

// add makes w a wire of the loop. What happened to it before comes as an event.
func (l *loop) add(w *loopWire, fd int32) syscall.Errno {
	l.enlist(w, fd)
	return watch(l.ep, fd, w.gen, watched)
}

// enlist gives w its place in the table.
func (l *loop) enlist(w *loopWire, fd int32) {
	for int(fd) >= len(l.table) {
		l.table = append(l.table, make([]*loopWire, len(l.table)+256)...)
	}
	if l.gen++; l.gen == 0 {
		l.gen++
	}
	w.fd, w.gen = fd, l.gen
	w.ready, w.ended, w.broken, w.joined, w.fetched, w.lined = false, false, false, false, 0, 0
	l.table[fd] = w
}

// remove forgets w. Its descriptor is the caller's.
func (l *loop) remove(w *loopWire) {
	l.wheel.unlink(w)
	if l.table[w.fd] == w {
		l.table[w.fd] = nil
	}
	w.queued = false
	w.fd, w.due = -1, 0
}
