package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
)

// A loopServer is a connection to a server. One exchange at a time has it. While none
// has, whatever happens on it ends it: a server has nothing to say then.
type loopServer struct {
	loopWire
	home   *home
	user   *loopClient // whose exchange is at it; nil while it is idle
	idle   bool        // it is in home; guarded by home.mu
	reused bool        // this exchange is not its first
	begun  time.Time   // when it was dialled
	unread bool        // it may have said something that nobody has looked at
}

// A home is the idle connections to one server, those of each loop apart. A loop that
// has none takes one of another's, so that connections are used again whichever loop
// their next request comes to.
type home struct {
	server *dataplane.Server

	mu    sync.Mutex // guards what follows
	loops [][]*loopServer
	count int
}

// homeOf returns the home of a server's connections.
func (l *loop) homeOf(s *dataplane.Server) *home {
	if h := l.homes[s]; h != nil {
		return h
	}
	made, _ := l.engine.homes.LoadOrStore(s, &home{server: s, loops: make([][]*loopServer, len(l.engine.loops))})
	h := made.(*home)
	l.homes[s] = h
	return h
}

// take returns the youngest idle connection of this loop, or else one of another's, or
// nil.
func (l *loop) take(h *home) *loopServer {
	h.mu.Lock()
	if own := h.loops[l.index]; len(own) > 0 {
		u := h.pop(l.index)
		h.mu.Unlock()
		u.reused = true
		return u
	}
	u := h.steal(l)
	h.mu.Unlock()
	return u
}

// pop takes out the youngest connection of a loop that has one.
func (h *home) pop(index int) *loopServer {
	list := h.loops[index]
	last := len(list) - 1
	u := list[last]
	list[last] = nil
	h.loops[index] = list[:last]
	u.idle = false
	h.count--
	return u
}

// steal makes an idle connection of another loop one of l. What its former loop still
// hears of it, it finds not to be its own any more.
func (h *home) steal(l *loop) *loopServer {
	for i := range h.loops {
		if len(h.loops[i]) == 0 {
			continue
		}
		old := h.pop(i)
		unwatch(l.engine.loops[i].ep, old.fd)
		u := l.newServer(h)
		if l.add(&u.loopWire, old.fd) != 0 {
			l.closeServer(u)
			return nil
		}
		u.reused, u.unread = true, true
		return u
	}
	return nil
}

// keepServer takes back a connection on which all is said, to be used again within life.
func (l *loop) keepServer(u *loopServer, life time.Duration) {
	g := l.engine.side
	h := u.home
	u.user = nil
	if life <= 0 || u.ended || h.server.Gone() || g.draining.Load() {
		l.closeServer(u)
		return
	}
	u.unread = u.ready
	h.mu.Lock()
	full := h.count >= g.conf.Kept
	if !full {
		u.idle = true
		h.loops[l.index] = append(h.loops[l.index], u)
		h.count++
	}
	h.mu.Unlock()
	if full {
		l.closeServer(u)
		return
	}
	l.wheel.set(&u.loopWire, now()+moment(life))
}

// dropIdle closes an idle connection that has ended, spoken or grown old. One that
// another loop took is only forgotten.
func (l *loop) dropIdle(u *loopServer) {
	h := u.home
	h.mu.Lock()
	own := u.idle
	if own {
		list := h.loops[l.index]
		i := slices.Index(list, u)
		h.loops[l.index] = slices.Delete(list, i, i+1)
		u.idle = false
		h.count--
	}
	h.mu.Unlock()
	if own {
		l.closeServer(u)
		return
	}
	fd := u.fd
	l.wheel.unlink(&u.loopWire)
	if l.table[fd] == &u.loopWire {
		l.table[fd] = nil
	}
}

// closeServer ends a connection that is not idle.
func (l *loop) closeServer(u *loopServer) {
	fd := u.fd
	u.home.server.Conns.Add(-1)
	l.remove(&u.loopWire)
	closeFD(fd)
	gen := u.gen
	*u = loopServer{}
	u.fd, u.gen, u.loopWire.server = -1, gen, u
	l.servers = append(l.servers, u)
}

func (l *loop) newServer(h *home) *loopServer {
	var u *loopServer
	if last := len(l.servers) - 1; last >= 0 {
		u = l.servers[last]
		l.servers = l.servers[:last]
	} else {
		u = &loopServer{}
		u.loopWire.server = u
	}
	u.home = h
	return u
}

// look reads on a connection that should be silent, before it is used: whether it still
// lives, and whether nobody has spoken unasked.
func (l *loop) look(u *loopServer) bool {
	_, e := readFD(uintptr(u.fd), l.rsp[:1])
	u.ready, u.unread = false, false
	return e == eagain
}

var errLoops = errors.New("it met itself")

// emptyOnce is emptyAll, at most once a second.
func (l *loop) emptyOnce() {
	if now()-l.emptied > moment(time.Second) {
		l.emptyAll()
	}
}

// dial begins a connection for c's exchange. The error wraps ErrConnect.
func (l *loop) dial(h *home, c *loopClient) (*loopServer, error) {
	addr := h.server.Addr()
	if !addr.IsValid() {
		return nil, fmt.Errorf("%w: %w", dataplane.ErrConnect, errNoAddress)
	}
	l.engine.side.counts.dials.Add(1)
	begun := time.Now()
	fd, e := connectFD(addr)
	if fd < 0 {
		return nil, fmt.Errorf("%w: dial tcp %v: %w", dataplane.ErrConnect, addr, e)
	}
	if l.engine.side.spare.spent(int(fd)) {
		closeFD(fd)
		return nil, fmt.Errorf("%w: dial tcp %v: %w", dataplane.ErrConnect, addr, syscall.EMFILE)
	}
	u := l.newServer(h)
	u.user, u.begun = c, begun
	h.server.Conns.Add(1)
	if e := l.add(&u.loopWire, fd); e != 0 {
		l.closeServer(u)
		return nil, fmt.Errorf("%w: epoll_ctl: %w", dataplane.ErrConnect, e)
	}
	return u, nil
}

// connected returns what became of a connection that was dialled.
func (u *loopServer) connected() error {
	e := connectError(u.fd)
	if e == 0 && u.home.server.Addr().Addr().IsLoopback() && toItself(u.fd) {
		return fmt.Errorf("%w: %w", dataplane.ErrConnect, errLoops)
	}
	switch e {
	case 0:
		return nil
	case syscall.ETIMEDOUT:
		return fmt.Errorf("%w: %w", dataplane.ErrConnectTime, e)
	}
	return fmt.Errorf("%w: dial tcp %v: %w", dataplane.ErrConnect, u.home.server.Addr(), e)
}

// serverEvent is for what happens on a server's connection.
func (l *loop) serverEvent(u *loopServer, what readiness) {
	c := u.user
	if c == nil {
		if what&(canRead|ended|broken) != 0 {
			l.dropIdle(u)
		}
		return
	}
	t := c.tray
	switch c.phase {
	case phaseDial:
		if what&(canWrite|broken) != 0 {
			l.dialled(c, u)
		}
		return
	case phaseSend:
		if what&(canWrite|broken) != 0 {
			l.sendRest(c)
		}
		return
	}
	if t.up.stuck() && what&(canWrite|broken) != 0 {
		l.uploadRest(c)
	}
	if c.tray != t || t.server != u || !u.ready || t.owed() {
		return
	}
	switch c.phase {
	case phaseAwait:
		l.hearServer(c)
	case phaseRelay:
		l.pump(c)
	}
}

// serverDue is for an idle connection that has grown old.
func (l *loop) serverDue(u *loopServer) {
	if u.user == nil {
		l.dropIdle(u)
	}
}

// sweep closes, now and then, the connections to servers that are gone, takes what waits for
// an answer away from those that are lost, and looks after the loop's processor.
func (l *loop) sweep(t moment) {
	if t-l.swept < moment(l.engine.side.conf.Sweep) {
		return
	}
	l.swept = t
	l.pin.look(t, l.turns, l.parks)
	lost := false
	for s, h := range l.homes {
		lost = lost || s.Lost()
		if !s.Gone() {
			continue
		}
		l.empty(h)
		delete(l.homes, s)
		l.engine.homes.Delete(s)
	}
	if lost {
		l.takeAway(t)
	}
}

// takeAway fails the exchanges that wait at lost servers and can go elsewhere, since
// nothing has come.
func (l *loop) takeAway(at moment) {
	for _, w := range l.table {
		if w == nil || w.client == nil {
			continue
		}
		c := w.client
		t := c.tray
		if c.phase != phaseAwait && c.phase != phaseSend || t.server == nil || !t.server.home.server.Lost() {
			continue
		}
		if t.got > 0 || t.interim > 0 || at-t.since < moment(l.engine.side.conf.Sweep) ||
			!t.x.Request.Method.Idempotent() || !t.body.whole || !t.body.atHand {
			continue
		}
		l.busy = c
		l.fail(c, dataplane.ErrServerDown)
		l.busy = nil
	}
}

// empty closes this loop's idle connections of a home.
func (l *loop) empty(h *home) {
	for {
		h.mu.Lock()
		if len(h.loops[l.index]) == 0 {
			h.mu.Unlock()
			return
		}
		u := h.pop(l.index)
		h.mu.Unlock()
		l.closeServer(u)
	}
}

// emptyAll closes all idle connections of this loop.
func (l *loop) emptyAll() {
	l.emptied = now()
	for _, h := range l.homes {
		l.empty(h)
	}
}
