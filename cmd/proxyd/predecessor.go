package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/baton"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/ha/beat"
)

// A predecessor is the process whose place this one takes, or the cluster part of this process
// in whose place another comes. A nil one is none: then everything is opened anew.
type predecessor struct {
	// within, if set, is the moment of change within this process: it has take put in place
	// what the part before knows. There is no line then.
	within func(take func(cluster json.RawMessage) error) error

	line   *baton.Line
	stderr *os.File // where it writes its log; nil: where this process does
	words  socketsWords
	legacy *baton.Legacy
	ours   bool              // it has said yours
	socket *net.UnixListener // the admin socket that it had, whose path is its to remove until then; nil: none

	left    atomic.Pointer[leftWords] // what it said last of its connections; nil: nothing yet
	ended   chan struct{}             // closed when it has ended
	sending sync.Mutex                // of the line, once this process serves

	before map[int]*os.File // it and those before it, by PID: what tells when they have ended
}

// The environment of a process that is started to take another's place: the descriptors of
// the line to it, and of the log once all is well.
const (
	lineEnv = "PROXYD_BATON"
	logEnv  = "PROXYD_BATON_LOG"
)

// findPredecessor returns the process that started this one to take its place, nil if none
// did, and takes its sockets over.
func findPredecessor() (*predecessor, error) {
	text := os.Getenv(lineEnv)
	if text == "" {
		return nil, nil
	}
	log := os.Getenv(logEnv)
	os.Unsetenv(lineEnv) // it is not for who is started by this process
	os.Unsetenv(logEnv)
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q is no descriptor: it is set by proxyd itself", lineEnv, text)
	}
	line, err := baton.At(fd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", lineEnv, err)
	}
	p := newPredecessor(line)
	if n, err := strconv.Atoi(log); err == nil && n > 2 {
		unix.CloseOnExec(n)
		p.stderr = os.NewFile(uintptr(n), "log")
	}
	return p, p.greet()
}

func newPredecessor(l *baton.Line) *predecessor {
	return &predecessor{line: l, ended: make(chan struct{})}
}

// greet says who this process is and takes the sockets.
func (p *predecessor) greet() error {
	oldest, newest := successions()
	if err := p.line.Send(answerTime, sayHello, helloWords{Succession: oldest, Newest: newest, PID: os.Getpid(), Version: build()}); err != nil {
		return err
	}
	m, err := p.hear(saySockets, answerTime, &p.words)
	p.legacy = baton.NewLegacy(m.Files)
	if spoken := max(p.words.Succession, oldestSuccession); err == nil && (spoken < oldest || spoken > newest) {
		err = fmt.Errorf("the process before this one speaks version %d of the hand-over between processes, and this one %s", spoken, span(oldest, newest))
	}
	if err == nil {
		p.watch()
	}
	return err
}

// watch gets what tells of each process that has UDP sockets when it has ended.
func (p *predecessor) watch() {
	p.before = map[int]*os.File{}
	for _, all := range p.words.Packets {
		for _, w := range all {
			if p.before[w.PID] != nil {
				continue
			}
			if f, ok := p.legacy.File(processPrefix + strconv.Itoa(w.PID)); ok {
				p.before[w.PID] = f
			} else if w.PID != p.words.PID {
				continue // it counts as living
			} else if fd, err := unix.PidfdOpen(w.PID, 0); err == nil { // it is our parent, so nobody else has the number
				p.before[w.PID] = os.NewFile(uintptr(fd), "process")
			}
		}
	}
}

// gone reports whether a process before this one has ended.
func (p *predecessor) gone(pid int) bool {
	if p == nil || p.before[pid] == nil {
		return false
	}
	raw, err := p.before[pid].SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	_ = raw.Control(func(fd uintptr) { // an error says nothing
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ended = n == 1 && err == nil
	})
	return ended
}

// processes are copies of what tells when the processes before this one have ended, for the next.
func (p *predecessor) processes() (files []baton.File, err error) {
	if p == nil {
		return nil, nil
	}
	for pid, f := range p.before {
		raw, err := f.SyscallConn()
		if err == nil {
			var fault error
			err = raw.Control(func(fd uintptr) {
				var copied int
				if copied, fault = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); fault == nil {
					files = append(files, baton.File{Name: processPrefix + strconv.Itoa(pid), File: os.NewFile(uintptr(copied), "process")})
				}
			})
			err = errors.Join(err, os.NewSyscallError("fcntl", fault))
		}
		if err != nil {
			baton.CloseFiles(files)
			return nil, err
		}
	}
	return files, nil
}

// berths are the UDP sockets that the processes before this one have at an address.
func (p *predecessor) berths(address string) (all []proxy.Berth) {
	if !p.lives() {
		return nil
	}
	for i, w := range p.words.Packets[address] {
		f, ok := p.legacy.File(packetName(i, address))
		if !ok {
			break
		}
		all = append(all, proxy.Berth{Tag: w.Tag, PID: w.PID, Socket: f})
	}
	return all
}

// hear waits for one word, into body.
func (p *predecessor) hear(kind string, d time.Duration, body any) (baton.Message, error) {
	m, err := p.line.Receive(d)
	if err != nil {
		return m, fmt.Errorf("the process before this one: waiting for %q: %w", kind, err)
	}
	if m.Kind != kind {
		return m, fmt.Errorf("the process before this one says %q, want %q", m.Kind, kind)
	}
	if body != nil {
		err = json.Unmarshal(m.Body, body)
	}
	return m, err
}

// failed tells the predecessor that this process cannot take its place, and why.
func (p *predecessor) failed(err error) {
	if p == nil {
		return
	}
	_ = p.line.Send(answerTime, sayFailed, failedWords{err.Error()}) // it sees our end, too
	p.line.Close()
}

// lives reports whether another process still decides.
func (p *predecessor) lives() bool { return p != nil && !p.ours }

// openers open the sockets of the heartbeat, or take the predecessor's.
func (p *predecessor) openers() beat.Openers {
	if !p.lives() {
		return beat.Openers{}
	}
	return beat.Openers{
		UDP: func(at netip.AddrPort) (*net.UDPConn, error) { return p.memberUDP(at.String()) },
		TCP: func(at netip.AddrPort) (net.Listener, error) { return p.memberTCP(at.String()) },
	}
}

// memberTCP opens a TCP socket between nodes, or takes the predecessor's.
func (p *predecessor) memberTCP(address string) (net.Listener, error) {
	if p.lives() {
		if l, ok, err := p.legacy.Listener(memberPrefix + "tcp " + address); ok || err != nil {
			return l, err
		}
	}
	return net.Listen("tcp", address)
}

// memberUDP opens a UDP socket between nodes, or takes the predecessor's.
func (p *predecessor) memberUDP(address string) (*net.UDPConn, error) {
	if p.lives() {
		if c, ok, err := p.legacy.UDP(memberPrefix + "udp " + address); ok || err != nil {
			return c, err
		}
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
}

// listen opens a listener of the data plane, or takes the predecessor's.
func (p *predecessor) listen(network, address string) (net.Listener, error) {
	if p != nil {
		if l, ok, err := p.legacy.Listener(listenerPrefix + address); err != nil {
			return nil, err
		} else if ok {
			return proxy.Adopt(l)
		}
	}
	return proxy.Listen(network, address)
}

// listenSocket opens the admin socket, or takes the predecessor's.
func (p *predecessor) listenSocket(path string) (net.Listener, error) {
	if p == nil {
		return control.ListenSocket(path)
	}
	l, ok, err := p.legacy.Listener(adminSocket + " " + path)
	if err == nil && !ok {
		l, err = control.ListenSocket(path)
	}
	if err != nil {
		return nil, err
	}
	if u, is := l.(*net.UnixListener); is && ok {
		p.socket = u
	}
	return l, nil
}

// listenTCP opens an admin address, or takes the predecessor's.
func (p *predecessor) listenTCP(address string) (net.Listener, error) {
	if p == nil {
		return net.Listen("tcp", address)
	}
	l, ok, err := p.legacy.Listener(adminPrefix + address)
	if err == nil && !ok {
		l, err = net.Listen("tcp", address)
	}
	return l, err
}

// takeOver is the moment of change: this process is ready, hears what the other knows, has
// take put it in place, and decides from then on.
func (p *predecessor) takeOver(n *node, take func(cluster json.RawMessage) error) error {
	if !p.lives() {
		return nil
	}
	if p.within != nil {
		err := p.within(take)
		if err == nil {
			p.own()
		}
		return err
	}
	p.settle(n.plane)
	if err := p.line.Send(answerTime, sayReady, nil); err != nil {
		return err
	}
	var s stateWords
	if _, err := p.hear(sayState, answerTime, &s); err != nil {
		return err
	}
	if len(s.Shared) > 0 {
		if err := n.shared.Merge(s.Shared); err != nil {
			return err
		}
	}
	n.upgrades.done.Store(s.Done + 1)
	n.upgrades.failed.Store(s.Failed)
	if take != nil {
		if err := take(s.Cluster); err != nil {
			return err
		}
	}
	if err := p.line.Send(answerTime, saySet, nil); err != nil {
		return err
	}
	if _, err := p.hear(sayYours, answerTime, nil); err != nil {
		return err
	}
	p.own()
	return nil
}

// own is for when this process decides.
func (p *predecessor) own() {
	p.ours = true
	if p.socket != nil {
		p.socket.SetUnlinkOnClose(true)
	}
}

// settle waits for the first round of checks, during which the other process serves. The
// plane knows when it has waited for long enough.
func (p *predecessor) settle(plane *proxy.Plane) {
	for ok, _ := plane.Ready(); !ok; ok, _ = plane.Ready() {
		time.Sleep(10 * time.Millisecond)
	}
}

// serve says that this process serves, and follows how the other one comes to its end.
func (p *predecessor) serve(ctx context.Context, n *node, parts *sync.WaitGroup) {
	if p == nil {
		return
	}
	n.admin.gate.open()
	if p.stderr != nil {
		// From now on this process writes its log itself: the other, which has passed it on
		// so far, will end.
		if err := unix.Dup3(int(p.stderr.Fd()), 2, 0); err != nil {
			n.log.Warn("the log goes through the process before this one", "error", err)
		}
		p.stderr.Close()
	}
	if err := p.line.Send(answerTime, sayUp, nil); err != nil {
		n.log.Warn("the process before this one is gone already", "error", err)
	}
	if unused := p.legacy.Close(); len(unused) > 0 {
		n.log.Info("sockets that the configuration no longer has are closed", "sockets", unused)
	}
	n.log.Info("upgraded", "from", p.words.Version.Version, "to", version, "pid_before", p.words.PID)
	parts.Go(func() {
		p.follow(ctx)
		n.plane.Parted()
	})
}

// follow notes how many connections the other process has, until it or ctx ends.
func (p *predecessor) follow(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { p.line.Close() })()
	defer p.line.Close()
	defer close(p.ended)
	for {
		m, err := p.line.Receive(10 * time.Second)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // it is busy, or frozen
		}
		if err != nil {
			return
		}
		p.note(m)
	}
}

// note takes in what the other process says once this one serves.
func (p *predecessor) note(m baton.Message) {
	baton.CloseFiles(m.Files)
	var w leftWords
	if m.Kind == sayLeft && json.Unmarshal(m.Body, &w) == nil {
		p.left.Store(&w)
	}
}

// remains returns what the process before this one has left, with those before it. It is false
// when all of them have ended.
func (p *predecessor) remains() (leftWords, bool) {
	if p == nil {
		return leftWords{At: map[netip.Addr]int{}}, false
	}
	select {
	case <-p.ended:
		return leftWords{At: map[netip.Addr]int{}}, false
	default:
	}
	if w := p.left.Load(); w != nil {
		return *w, true
	}
	return leftWords{At: map[netip.Addr]int{}}, true // it says so when it begins to end
}

// wait waits for the end of the processes before this one, until ctx ends.
func (p *predecessor) wait(ctx context.Context) {
	if p == nil {
		return
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
	}
}

// Count returns how many connections that came in at a local address the processes before this
// one still have.
func (p *predecessor) Count(local netip.Addr) int {
	w, _ := p.remains()
	if w.At == nil { // it does not know: they may all be there
		return int(w.Connections)
	}
	return w.At[local]
}

// Retire has the processes before this one let go of such connections, by force or not.
func (p *predecessor) Retire(local netip.Addr, force bool) {
	if p == nil || p.left.Load() == nil { // before that it waits for other words
		return
	}
	p.sending.Lock()
	defer p.sending.Unlock()
	// One that has just ended has none, and one that does not listen has its own time-out.
	_ = p.line.Send(time.Second, sayPart, partWords{local, force})
}
