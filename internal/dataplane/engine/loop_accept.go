package engine

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A loopDoor is a door at which one loop waits.
type loopDoor struct {
	loopWire
	*door
	pause moment // of the wait after an accept that failed
	more  bool   // there were more than were taken
}

// acceptAtOnce is how many connections a loop takes before it looks at those it has, and
// other loops at the door. When there are more it comes back in its next turn, and takes up to
// acceptMore each time: behind all that is ready at a loop which has too much to do, who
// wants to come in would wait for seconds. Where it is known that others wait for their turn
// it takes acceptBehind: a crowd at the door must not cost those their time who are in.
const (
	acceptAtOnce = 8
	acceptMore   = 32
	acceptBehind = 4
)

// open has every loop wait at d. Those that are not busy look at each connection, and one
// of them gets it.
func (e *Loop) open(d *door) (closed <-chan struct{}, err error) {
	end := make(chan struct{})
	err = d.socket.attend(func(fd int) {
		for _, l := range e.loops {
			unwatch(l.ep, int32(fd))
		}
		e.takeLast(d, fd)
		close(end)
	})
	if err != nil {
		return nil, err
	}
	faults := make(chan error, len(e.loops))
	for _, l := range e.loops {
		if !l.post(func() { faults <- l.openDoor(d) }) {
			return nil, net.ErrClosed
		}
	}
	for range e.loops {
		select {
		case err := <-faults:
			if err != nil {
				return nil, err
			}
		case <-end:
			return end, nil
		}
	}
	return end, nil
}

// lastAccepts is how many connections are taken in from a door that closes: more do not
// wait at any.
const lastAccepts = 4096

// takeLast takes in who waits at a door that is about to be closed. The kernel would
// reset them, though they came in time.
func (e *Loop) takeLast(d *door, fd int) {
	for range lastAccepts {
		conn, addr, errno := acceptFD(fd)
		if errno != 0 {
			return
		}
		e.give(d, conn, addr)
	}
}

// openDoor has the loop wait at d.
func (l *loop) openDoor(d *door) error {
	s := d.socket
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return nil
	}
	w := &loopDoor{door: d}
	w.loopWire.door = w
	l.enlist(&w.loopWire, int32(s.fd))
	if e := watch(l.ep, w.fd, w.gen, atDoor); e != 0 {
		l.remove(&w.loopWire)
		return fmt.Errorf("wait for listener %q: %w", d.listener.Name, os.NewSyscallError("epoll_ctl", e))
	}
	return nil
}

// accept takes connections in.
func (l *loop) accept(w *loopDoor) {
	most := acceptAtOnce
	if w.more {
		most = acceptMore
	}
	if l.queue.some() {
		most = acceptBehind
	}
	w.more = false
	for range most {
		fd, addr, e := w.socket.accept()
		switch e {
		case 0:
			w.pause = 0
			if g := l.engine.side; g.spare.fullFor(int(fd)) {
				turnAway(fd, w.listener.TLS == nil)
				g.noFiles(w.listener.Name, errSpare)
				l.emptyOnce()
				continue
			}
			l.engine.entered()
			l.welcome(w.door, fd, addr)
		case eagain:
			return
		case syscall.ECONNABORTED: // the client's affair
		case syscall.EBADF:
			l.remove(&w.loopWire) // the door is closed
			return
		default:
			l.shutDoor(w, e)
			return
		}
	}
	w.more = true
	l.later(&w.loopWire)
}

// shutDoor leaves a door alone for a while. Against a lack of files or memory only time
// helps, and giving up what is not needed now.
func (l *loop) shutDoor(w *loopDoor, e syscall.Errno) {
	g := l.engine.side
	if w.pause == 0 {
		l.emptyAll()
	}
	g.noFiles(w.listener.Name, e)
	w.pause = min(max(2*w.pause, moment(leastPause)), moment(mostPause))
	w.socket.whileOpen(func() { unwatch(l.ep, w.fd) })
	l.wheel.set(&w.loopWire, now()+w.pause)
}

// reopen has the loop wait at the door again.
func (l *loop) reopen(w *loopDoor) {
	open := w.socket.whileOpen(func() { watch(l.ep, w.fd, w.gen, atDoor) })
	if !open {
		l.remove(&w.loopWire)
	}
}

// atDoor is for listening sockets: loops are told as long as somebody waits there.
const atDoor = uint32(unix.EPOLLIN | unix.EPOLLEXCLUSIVE)
