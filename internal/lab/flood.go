package lab

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A flood sends requests by the clock on a limited number of connections. It is one thread
// with an epoll, so that it can ask for more than a proxy on the same machine can do: a
// client that is slower than what it measures measures itself.
type flood struct {
	to    netip.AddrPort
	rate  int  // requests a second; 0: each connection asks again when it was answered
	conns int  // at most
	even  bool // requests come at even intervals, not at random

	ep      int
	open    []*floodConn // by descriptor
	opened  int
	idle    []*floodConn
	waiting int // requests that are due and have no connection
	begun   time.Time
	answers []floodAnswer
	cores   float64 // that the proxy used meanwhile, on average
}

// A floodConn is a connection; while it is not idle a request is under way on it.
type floodConn struct {
	fd     int
	sent   time.Time // when its request was due on it; its making counts
	asked  bool      // the request has been written
	answer []byte    // what has been read of one that came in parts
}

// A floodAnswer is what became of a request.
type floodAnswer struct {
	sent   time.Duration // since the flood began
	took   time.Duration
	status int // 0: none
}

// A Flood is what came of requests between two moments.
type Flood struct {
	Offered int // requests a second that were meant to be sent
	Good    int // answered 200, a second
	Shed    int // answered 503 with Retry-After, a second
	Failed  int // anything else, a second
	P50     time.Duration
	P99     time.Duration // of those answered 200, from when they were sent
	Cores   float64       // that the proxy used in the whole flood, on average
}

func (f Flood) String() string {
	return fmt.Sprintf("good %d/s, shed %d/s, failed %d/s; p50 %v, p99 %v; %.2f of a processor",
		f.Good, f.Shed, f.Failed, f.P50.Round(time.Millisecond/10), f.P99.Round(time.Millisecond/10), f.Cores)
}

// patience is how long the flood waits for an answer.
const floodPatience = 10 * time.Second

// run floods for so long.
func (f *flood) run(ctx context.Context, long time.Duration) error {
	var err error
	if f.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("flood: %w", err)
	}
	defer unix.Close(f.ep)
	defer func() {
		for _, c := range f.open {
			if c != nil {
				unix.Close(c.fd)
			}
		}
	}()
	if f.rate == 0 {
		f.waiting = f.conns
	}
	f.begun = time.Now()
	next, checked := f.begun, f.begun
	events := make([]unix.EpollEvent, 1024)
	buf := make([]byte, 64<<10)
	for {
		t := time.Now()
		if t.Sub(f.begun) >= long || ctx.Err() != nil {
			return ctx.Err()
		}
		for f.rate > 0 && next.Before(t) {
			every := time.Second / time.Duration(f.rate)
			if !f.even {
				every = time.Duration(rand.ExpFloat64() * float64(every))
			}
			next = next.Add(every)
			f.waiting = min(f.waiting+1, 10*f.conns) // the rest is given up
		}
		f.send(t)
		n, err := unix.EpollWait(f.ep, events, 1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("flood: %w", err)
		}
		t = time.Now()
		for _, ev := range events[:max(n, 0)] {
			f.event(f.open[ev.Fd], ev.Events, t, buf)
		}
		if t.Sub(checked) > time.Second {
			checked = t
			f.giveUp(t)
		}
	}
}

// send gives requests that are due to connections that are idle, or new.
func (f *flood) send(t time.Time) {
	for f.waiting > 0 {
		if last := len(f.idle) - 1; last >= 0 {
			c := f.idle[last]
			f.idle = f.idle[:last]
			f.waiting--
			c.sent = t
			f.ask(c)
			continue
		}
		if f.opened >= f.conns {
			return
		}
		f.waiting--
		f.dial(t)
	}
}

// dial begins a connection, which asks when it is there.
func (f *flood) dial(t time.Time) {
	c := &floodConn{sent: t, fd: -1}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		c.fd = fd
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		for fd >= len(f.open) {
			f.open = append(f.open, make([]*floodConn, 1024)...)
		}
		f.open[fd] = c
		f.opened++
		err = unix.EpollCtl(f.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET, Fd: int32(fd)})
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(f.to.Port()), Addr: f.to.Addr().As4()})
	}
	if err != nil && err != unix.EINPROGRESS {
		f.end(c, 0, t)
	}
}

const floodHost = "flood.example"

var floodRequest = []byte("GET / HTTP/1.1\r\nHost: " + floodHost + "\r\nUser-Agent: lab\r\n\r\n")

func (f *flood) ask(c *floodConn) {
	c.asked = true
	if n, err := unix.Write(c.fd, floodRequest); err != nil || n < len(floodRequest) {
		f.end(c, 0, time.Now())
	}
}

// event is for what happened on c.
func (f *flood) event(c *floodConn, what uint32, t time.Time, buf []byte) {
	if c == nil {
		return
	}
	if !c.asked && what&unix.EPOLLOUT != 0 && what&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		f.ask(c)
		return
	}
	if what&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		return
	}
	n, err := unix.Read(c.fd, buf)
	if err == unix.EAGAIN {
		return
	}
	if err != nil || n <= 0 {
		f.end(c, 0, t)
		return
	}
	answer := buf[:n]
	if len(c.answer) > 0 {
		c.answer = append(c.answer, answer...)
		answer = c.answer
	}
	status, last, whole := readFloodAnswer(answer)
	switch {
	case !whole:
		c.answer = append(c.answer[:0], answer...)
	case last || status == 0:
		f.end(c, status, t)
	default:
		c.answer = c.answer[:0]
		f.note(c, status, t)
		f.idle = append(f.idle, c)
		if f.rate == 0 {
			f.waiting++
		}
	}
}

// readFloodAnswer returns the status of an answer that is there as a whole, 0 if it is not
// as it must be, and whether it is the last of its connection. A 503 must say when to come
// back.
func readFloodAnswer(b []byte) (status int, last, whole bool) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, false, false
	}
	head := b[:end+2]
	if len(head) < 12 || !bytes.HasPrefix(head, []byte("HTTP/1.1 ")) {
		return 0, true, true
	}
	status, _ = strconv.Atoi(string(head[9:12]))
	length, err := strconv.Atoi(string(floodField(head, "Content-Length")))
	if err != nil {
		return 0, true, true
	}
	if status == 503 && floodField(head, "Retry-After") == nil {
		status = 0
	}
	return status, string(floodField(head, "Connection")) == "close", len(b) >= end+4+length
}

// floodField returns the value of a field of a head.
func floodField(head []byte, name string) []byte {
	_, rest, ok := bytes.Cut(head, []byte("\r\n"+name+": "))
	if !ok {
		return nil
	}
	value, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return value
}

// note writes down what became of the request on c.
func (f *flood) note(c *floodConn, status int, t time.Time) {
	f.answers = append(f.answers, floodAnswer{c.sent.Sub(f.begun), t.Sub(c.sent), status})
}

// end notes the request on c, if one is under way, and closes it.
func (f *flood) end(c *floodConn, status int, t time.Time) {
	if i := slices.Index(f.idle, c); i >= 0 {
		f.idle = slices.Delete(f.idle, i, i+1) // the server has closed it between two requests
	} else {
		f.note(c, status, t)
		if f.rate == 0 {
			f.waiting++
		}
	}
	if c.fd >= 0 {
		f.open[c.fd] = nil
		f.opened--
		unix.Close(c.fd)
	}
}

// giveUp ends what takes too long.
func (f *flood) giveUp(t time.Time) {
	idle := map[*floodConn]bool{}
	for _, c := range f.idle {
		idle[c] = true
	}
	for _, c := range f.open {
		if c != nil && !idle[c] && t.Sub(c.sent) > floodPatience {
			f.end(c, 0, t)
		}
	}
}

// between sums up the requests that were sent between two moments of the flood.
func (f *flood) between(from, to time.Duration) Flood {
	r := Flood{Offered: f.rate, Cores: f.cores}
	var times []time.Duration
	for _, a := range f.answers {
		if a.sent < from || a.sent >= to {
			continue
		}
		switch a.status {
		case 200:
			r.Good++
			times = append(times, a.took)
		case 503:
			r.Shed++
		default:
			r.Failed++
		}
	}
	per := func(n int) int { return int(float64(n) / (to - from).Seconds()) }
	r.Good, r.Shed, r.Failed = per(r.Good), per(r.Shed), per(r.Failed)
	slices.Sort(times)
	if n := len(times); n > 0 {
		r.P50, r.P99 = times[n/2], times[n*99/100]
	}
	return r
}

// ServePlain answers every request with a few bytes until ctx ends. It costs next to nothing:
// what a proxy can do is what is measured.
func ServePlain(ctx context.Context, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go answerPlain(c) // ends when the proxy closes the connection
	}
}

func answerPlain(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	have := 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		whole := bytes.HasSuffix(buf[:have], []byte("\r\n\r\n"))
		if !whole && have < len(buf) {
			continue
		}
		have = 0
		if _, err := c.Write(plainAnswer); !whole || err != nil {
			return
		}
	}
}

var plainAnswer = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nplain\n")
