package engine

import (
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A spare keeps file descriptors for what must go on when clients take all there are: the
// election, the admin socket, configurations, connections to servers. The kernel gives the
// lowest descriptor that is free, so the number of a new one tells how many are in use.
// Clients may have none of the last of them, connections to servers half of those.
type spare struct {
	clients atomic.Int64 // from this number on clients are turned away
	servers atomic.Int64 // from this number on no connection to a server is made

	refused atomic.Uint64 // clients that were turned away, and accepts that failed
	told    atomic.Uint64 // refused when the last log line was written
	at      atomic.Int64  // when that was, a moment
}

const (
	// What is kept is an eighth of all descriptors, within these bounds.
	leastSpare = 48
	mostSpare  = 1024

	// toldEvery is how often the log says that clients are turned away.
	toldEvery = time.Minute
)

// look finds out how many descriptors there may be. It can change while the process runs.
func (s *spare) look() {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil {
		s.limit(int64(min(l.Cur, 1<<40)))
	}
}

// limit sets how many there may be.
func (s *spare) limit(all int64) {
	keep := min(max(all/8, leastSpare), mostSpare, all/2)
	s.clients.Store(all - keep)
	s.servers.Store(all - keep/2)
}

// fullFor reports whether a client that got this descriptor is one too many.
func (s *spare) fullFor(fd int) bool { return int64(fd) >= s.clients.Load() }

// spent reports whether a connection to a server that got this descriptor is one too many.
func (s *spare) spent(fd int) bool { return int64(fd) >= s.servers.Load() }

// refuse counts a client that found no place at t. It reports whether the log is to be told,
// and of how many.
func (s *spare) refuse(t moment) (n uint64, tell bool) {
	all := s.refused.Add(1)
	last := s.at.Load()
	if last != 0 && t-moment(last) < moment(toldEvery) || !s.at.CompareAndSwap(last, int64(max(t, 1))) {
		return 0, false
	}
	return all - s.told.Swap(all), true
}

// noFiles says in the log that clients are turned away, once a minute.
func (g *Goroutine) noFiles(listener string, err error) {
	if n, tell := g.spare.refuse(now()); tell {
		g.conf.Logger.Warn("accept failed", "listener", listener, "err", err, "count", n)
	}
}

// errSpare is what the log says of a client that might have had one of the last descriptors.
const errSpare = syscall.EMFILE

// turnedAway is what a client is told that finds no place. Nothing is known of what it asks.
const turnedAway = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

// turnAway tells a client that there is no place and closes its connection. What it has sent
// is read first: else the reset that it causes may come before the answer.
func turnAway(fd int32, plain bool) {
	if plain {
		var dropped [4096]byte
		_, _ = readFD(uintptr(fd), dropped[:])
		_, _ = writeFD(uintptr(fd), []byte(turnedAway))
		closeHalf(fd)
	}
	closeFD(fd)
}
