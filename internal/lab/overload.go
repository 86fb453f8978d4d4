package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An Overload drill caps a proxyd to a share of a processor, finds out what it can do,
// and offers three times that; then it plays clients that cost without asking. All of it
// is on the loopback of this machine.
type Overload struct {
	Plan  Plan
	Conns int           // connections of the clients
	Last  time.Duration // of each measurement
	Out   io.Writer
}

// A Flood is what a measurement came to.
type Flood struct {
	Offered int // requests a second that were meant to be sent
	Good    int // answered 200, a second
	Shed    int // answered 503 with Retry-After, a second
	Failed  int // anything else, a second
	P50     time.Duration
	P99     time.Duration // of those answered 200, from when they were sent
	RSS     int64         // of proxyd, in bytes, afterwards
}

func (f Flood) String() string {
	return fmt.Sprintf("offered %d/s: good %d/s, shed %d/s, failed %d/s; p50 %v, p99 %v; RSS %.1f MB",
		f.Offered, f.Good, f.Shed, f.Failed, f.P50.Round(time.Millisecond/10), f.P99.Round(time.Millisecond/10), float64(f.RSS)/1e6)
}

// Run plays it all and returns an error that says which promise was not kept.
func (o Overload) Run(ctx context.Context) error {
	o.Conns, o.Last = cmp.Or(o.Conns, 1000), cmp.Or(o.Last, 15*time.Second)
	dir, err := os.MkdirTemp("", "overload")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := o.server(dir)
	if err != nil {
		return err
	}
	defer server.Kill()
	n := &capped{plan: o.Plan, dir: dir, server: "127.0.0.1:18081", at: "127.0.0.1:18080"}
	if err := n.start(0); err != nil {
		return err
	}
	defer n.stop()

	flood := func(rate, conns int) (Flood, error) {
		f := newFlood(n.at, rate, conns).run(ctx, o.Last)
		f.RSS = n.rss()
		fmt.Fprintln(o.Out, f)
		return f, errors.Join(ctx.Err(), n.alive())
	}
	// What it can do: as many connections as keep it busy, each asking when it was answered.
	best, err := flood(0, 32)
	if err != nil {
		return err
	}
	normal, err := flood(best.Good*8/10, o.Conns)
	if err != nil {
		return err
	}
	over, err := flood(best.Good*3, o.Conns)
	if err != nil {
		return err
	}
	after, err := flood(best.Good*8/10, o.Conns)
	if err != nil {
		return err
	}
	var broken []error
	promise := func(kept bool, format string, args ...any) {
		if !kept {
			broken = append(broken, fmt.Errorf(format, args...))
		}
	}
	promise(over.Good >= best.Good*9/10, "goodput at 3 times the capacity is %d/s of %d/s", over.Good, best.Good)
	promise(over.P99 < 2*normal.P99, "p99 of those let in is %v, normally %v", over.P99, normal.P99)
	promise(over.Shed > 0, "nobody was told to come back later")
	promise(after.Shed+after.Failed <= after.Good/100, "afterwards it still refuses: %v", after)
	broken = append(broken, o.slow(ctx, n)...)
	n.stop()
	broken = append(broken, o.files(ctx, n)...)
	return errors.Join(broken...)
}

func (o Overload) server(dir string) (*Process, error) {
	p, _, err := start(command{name: "server", argv: []string{o.Plan.Lab, "serve", "--listen", "127.0.0.1:18081"}, log: filepath.Join(dir, "server.log")})
	return p, err
}

// slow plays slowloris: heads, bodies and readers that never come to an end.
func (o Overload) slow(ctx context.Context, n *capped) (broken []error) {
	const clients = 300
	before := n.rss()
	for _, kind := range []struct{ name, say, more string }{
		{"heads", "GET / HTTP/1.1\r\nHost: h\r\nX: ", "x"},
		{"bodies", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n", "x"},
		{"readers", "GET /bytes/4000000 HTTP/1.1\r\nHost: h\r\n\r\n", ""},
	} {
		var all []net.Conn
		for range clients {
			c, err := net.Dial("tcp", n.at)
			if err != nil {
				broken = append(broken, fmt.Errorf("slow %s: %w", kind.name, err))
				break
			}
			c.(*net.TCPConn).SetReadBuffer(4 << 10)
			io.WriteString(c, kind.say)
			all = append(all, c)
		}
		for range 30 {
			if pause(ctx, 100*time.Millisecond) != nil {
				break
			}
			for _, c := range all {
				io.WriteString(c, kind.more)
			}
		}
		rss := n.rss()
		f := newFlood(n.at, 200, 20).run(ctx, 3*time.Second)
		fmt.Fprintf(o.Out, "%d slow %s: RSS %.1f MB (%.1f before); beside them good %d/s of %d/s, p99 %v\n", len(all), kind.name,
			float64(rss)/1e6, float64(before)/1e6, f.Good, f.Offered, f.P99.Round(time.Millisecond/10))
		if f.Good < f.Offered*9/10 {
			broken = append(broken, fmt.Errorf("beside %d slow %s only %d/s of %d/s are answered", len(all), kind.name, f.Good, f.Offered))
		}
		if cost := rss - before; cost > clients*200<<10 {
			broken = append(broken, fmt.Errorf("%d slow %s cost %.1f MB", len(all), kind.name, float64(cost)/1e6))
		}
		for _, c := range all {
			c.Close()
		}
		broken = append(broken, n.alive())
	}
	return broken
}

// files takes all descriptors that proxyd may have, and gives them back.
func (o Overload) files(ctx context.Context, n *capped) (broken []error) {
	if err := n.start(128); err != nil {
		return []error{err}
	}
	var all []net.Conn
	for range 300 {
		if c, err := net.DialTimeout("tcp", n.at, time.Second); err == nil {
			all = append(all, c)
		}
	}
	pause(ctx, 2*time.Second)
	broken = append(broken, n.alive())
	for _, c := range all {
		c.Close()
	}
	pause(ctx, 2*time.Second)
	f := newFlood(n.at, 100, 10).run(ctx, 3*time.Second)
	fmt.Fprintf(o.Out, "after %d connections with 128 descriptors: good %d/s of %d/s\n", len(all), f.Good, f.Offered)
	if f.Good < f.Offered*9/10 {
		broken = append(broken, fmt.Errorf("after all descriptors were taken only %d/s of %d/s are answered", f.Good, f.Offered))
	}
	return append(broken, n.alive())
}

// capped is a proxyd with a third of a processor.
type capped struct {
	plan   Plan
	dir    string
	at     string // its listener
	server string
	p      *Process
	group  string // its control group
}

// start starts it, with so many descriptors; 0: as many as there are.
func (n *capped) start(files uint64) error {
	conf := filepath.Join(n.dir, "proxyd.toml")
	text := fmt.Sprintf("[node]\nname = \"capped\"\nstate = %q\n[listener.http]\naddress = %q\n[admin]\nsocket = %q\nlisten = \"\"\n[log]\naccess = false\n[pool.app]\nservers = [%q]\n[[route]]\npool = \"app\"\n",
		n.dir, n.at, filepath.Join(n.dir, "admin.sock"), n.server)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	p, _, err := start(command{name: "proxyd", argv: []string{n.plan.Proxyd, "run", "-c", conf}, log: filepath.Join(n.dir, "proxyd.log")})
	if err != nil {
		return err
	}
	n.p = p
	if files > 0 {
		if err := unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}, nil); err != nil {
			return fmt.Errorf("limit descriptors: %w", err)
		}
	} else if n.group, err = third(p.PID()); err != nil {
		return err
	}
	for range 100 {
		if c, err := net.Dial("tcp", n.at); err == nil {
			c.Close()
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(n.dir, "proxyd.log"))
	return fmt.Errorf("proxyd does not listen: %s", log)
}

func (n *capped) stop() {
	if n.p != nil {
		n.p.Kill()
	}
	if n.group != "" {
		syscall.Rmdir(n.group)
		n.group = ""
	}
}

func (n *capped) alive() error {
	if n.p.Alive() {
		return nil
	}
	log, _ := os.ReadFile(filepath.Join(n.dir, "proxyd.log"))
	return fmt.Errorf("proxyd has ended: %v\n%s", n.p.Err(), log)
}

func (n *capped) rss() int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.p.PID()))
	if fields := strings.Fields(string(text)); len(fields) > 1 {
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		return pages * int64(os.Getpagesize())
	}
	return 0
}

// third puts a process into a control group of its own that has a third of a processor,
// of either version, and returns its directory.
func third(pid int) (string, error) {
	name := "proxyd-overload-" + strconv.Itoa(pid)
	for _, v := range []struct{ root, file, text string }{
		{"/sys/fs/cgroup", "cpu.max", "33000 100000"},
		{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "33000"},
	} {
		dir := filepath.Join(v.root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		err := tell(filepath.Join(dir, v.file), v.text)
		if err == nil {
			err = tell(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
		}
		if err == nil {
			return dir, nil
		}
		syscall.Rmdir(dir)
	}
	return "", errors.New("this machine lets nobody make a control group for the processor: the drill needs root")
}

// tell writes to a file that the kernel must have made.
func tell(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// A flood sends requests by the clock on a limited number of connections.
type flood struct {
	to    string
	rate  int // 0: each connection asks again when it was answered
	conns int

	due    chan struct{}
	good   atomic.Int64
	shed   atomic.Int64
	failed atomic.Int64

	mu    sync.Mutex
	times []time.Duration
}

func newFlood(to string, rate, conns int) *flood {
	return &flood{to: to, rate: rate, conns: conns, due: make(chan struct{}, 10*conns)}
}

// run floods for so long. What came of the first third is not counted: by then the node
// has seen what is coming.
func (f *flood) run(ctx context.Context, last time.Duration) Flood {
	ctx, cancel := context.WithTimeout(ctx, last)
	defer cancel()
	begun := time.Now()
	from := begun.Add(last / 3)
	var all sync.WaitGroup
	for range f.conns {
		all.Go(func() { f.client(ctx, from) })
	}
	if f.rate > 0 {
		f.clock(ctx)
	}
	all.Wait()
	slices.Sort(f.times)
	seconds := int64(max((last - last/3).Seconds(), 1))
	r := Flood{Offered: f.rate, Good: int(f.good.Load() / seconds), Shed: int(f.shed.Load() / seconds), Failed: int(f.failed.Load() / seconds)}
	if n := len(f.times); n > 0 {
		r.P50, r.P99 = f.times[n/2], f.times[n*99/100]
	}
	return r
}

// clock says when requests are due. Those that find no connection for ten times as many
// are given up.
func (f *flood) clock(ctx context.Context) {
	next := time.Now()
	for ctx.Err() == nil {
		for now := time.Now(); next.Before(now); next = next.Add(time.Duration(rand.ExpFloat64() / float64(f.rate) * float64(time.Second))) {
			select {
			case f.due <- struct{}{}:
			default:
			}
		}
		pause(ctx, time.Millisecond)
	}
}

func (f *flood) client(ctx context.Context, from time.Time) {
	var c net.Conn
	var r *bufio.Reader
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for {
		if f.rate > 0 {
			select {
			case <-f.due:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		sent := time.Now()
		status, err := 0, error(nil)
		if c == nil {
			if c, err = net.DialTimeout("tcp", f.to, 10*time.Second); err == nil {
				r = bufio.NewReaderSize(c, 1024)
			}
		}
		if err == nil {
			status, err = f.ask(c, r)
		}
		if err != nil && c != nil {
			c.Close()
			c = nil
		}
		took := time.Since(sent)
		switch {
		case sent.Before(from) || ctx.Err() != nil:
		case status == 200:
			f.good.Add(1)
			f.mu.Lock()
			f.times = append(f.times, took)
			f.mu.Unlock()
		case status == 503:
			f.shed.Add(1)
		default:
			f.failed.Add(1)
		}
	}
}

var floodRequest = []byte("GET / HTTP/1.1\r\nHost: lab.example\r\nUser-Agent: lab\r\n\r\n")

// ask returns the status of an answer; a 503 must say when to come back.
func (f *flood) ask(c net.Conn, r *bufio.Reader) (int, error) {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(floodRequest); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return 0, err
	}
	if answer.StatusCode == 503 && answer.Header.Get("Retry-After") == "" {
		return 0, errors.New("a 503 without Retry-After")
	}
	if answer.Close {
		return answer.StatusCode, io.EOF
	}
	return answer.StatusCode, nil
}
