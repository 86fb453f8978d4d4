package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// An Overload drill caps a proxyd to a third of a processor, finds out what it can do, and
// offers three times that; then it plays clients that cost without asking. All of it is on
// the loopback of this machine.
type Overload struct {
	Plan   Plan
	Conns  int           // of the clients, at most
	Rounds int           // of the three measurements
	Last   time.Duration // of each
	Out    io.Writer
}

// A Bout is one round of a drill: what the node can do at that time, what it does at four
// fifths of it, and at three times of it. What others do on the machine changes what a third
// of a processor can do within seconds, so each round is judged by itself, by what the node
// could do before and after the overload.
type Bout struct {
	Best, Normal Flood
	First        Flood // of the overload's first second
	Over         Flood // of its rest
	Again        Flood // what it can do afterwards
}

// able is how many requests a second the node could serve at that time.
func (b Bout) able() int { return max((b.Best.Good+b.Again.Good)/2, 1) }

// busyConns is how many connections show best what the node can do. With more, what they
// are and were about is no longer in the processor's caches.
const busyConns = 256

// Run plays it all and returns an error that says which promise was not kept.
func (o Overload) Run(ctx context.Context) error {
	o.Conns, o.Rounds, o.Last = cmp.Or(o.Conns, 4000), cmp.Or(o.Rounds, 5), cmp.Or(o.Last, 8*time.Second)
	dir, err := os.MkdirTemp("", "overload")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The clients and the servers get what they need, whatever else runs on this machine,
	// and so does the node, up to its third: else the work of others is what is measured.
	leave, err := confine(os.Getpid(), "lab", share{weight: mostWeight})
	if err != nil {
		return err
	}
	defer leave()
	n, endServers, err := cappedStage(o.Plan, dir)
	if err != nil {
		return err
	}
	defer endServers()
	n.quota = 33
	if err := n.start(0); err != nil {
		return err
	}
	defer n.stop()

	var bouts []Bout
	for range o.Rounds {
		b, err := o.bout(ctx, n)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.Out, "at its best:        %v\nat 80 %% of that:    %v\nat 300 %%, at first: %v\nat 300 %%, then:     %v; RSS %.1f MB\nat its best again:  %v\n",
			b.Best, b.Normal, b.First, b.Over, float64(n.rss())/1e6, b.Again)
		bouts = append(bouts, b)
	}
	after, err := o.flood(ctx, n, bouts[len(bouts)-1].able()*6/10, o.Conns)
	if err != nil {
		return err
	}
	broken := o.judge(bouts, after.between(o.Last/4, o.Last))
	broken = append(broken, o.slow(ctx, n)...)
	n.stop()
	broken = append(broken, o.files(ctx, n)...)
	return errors.Join(broken...)
}

// cappedStage starts the servers, in processes of their own, and says how to start the node.
func cappedStage(plan Plan, dir string) (n *capped, end func(), err error) {
	free, err := freeAddresses(3)
	if err != nil {
		return nil, nil, err
	}
	n = &capped{plan: plan, dir: dir, plain: free[0], server: free[1], at: free[2]}
	var all []*Process
	end = func() {
		for _, p := range all {
			p.Kill()
		}
	}
	for _, args := range [][]string{{"--plain", "--listen", n.plain}, {"--listen", n.server}} {
		p, _, err := start(command{name: "server", argv: append([]string{plan.Lab, "serve"}, args...), log: filepath.Join(dir, "server.log")})
		if err != nil {
			end()
			return nil, nil, err
		}
		all = append(all, p)
		n.serves = p
	}
	return n, end, nil
}

// freeAddresses returns so many addresses of the loopback at which nobody listens.
func freeAddresses(n int) (free []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // when all have their number
		free = append(free, l.Addr().String())
	}
	return free, nil
}

func (o Overload) flood(ctx context.Context, n *capped, rate, conns int) (*flood, error) {
	f := &flood{to: netip.MustParseAddrPort(n.at), rate: rate, conns: conns}
	before, err := usage(n.p.PID())
	if err != nil {
		return f, err
	}
	if err := errors.Join(f.run(ctx, o.Last), n.alive()); err != nil {
		return f, err
	}
	after, err := usage(n.p.PID())
	f.cores = (after.CPU - before.CPU).Seconds() / o.Last.Seconds()
	return f, err
}

// bout plays one round.
func (o Overload) bout(ctx context.Context, n *capped) (b Bout, err error) {
	best, err := o.flood(ctx, n, 0, busyConns)
	if err != nil {
		return b, err
	}
	b.Best = best.between(o.Last/4, o.Last)
	normal, err := o.flood(ctx, n, b.Best.Good*8/10, o.Conns)
	if err != nil {
		return b, err
	}
	b.Normal = normal.between(o.Last/4, o.Last)
	over, err := o.flood(ctx, n, b.Best.Good*3, o.Conns)
	if err != nil {
		return b, err
	}
	b.First, b.Over = over.between(0, time.Second), over.between(time.Second, o.Last)
	again, err := o.flood(ctx, n, 0, busyConns)
	b.Again = again.between(o.Last/4, o.Last)
	return b, err
}

// judge says which promises were not kept, by the medians of all rounds.
func (o Overload) judge(bouts []Bout, after Flood) (broken []error) {
	median := func(of func(Bout) float64) float64 {
		var all []float64
		for _, b := range bouts {
			all = append(all, of(b))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	good := median(func(b Bout) float64 { return float64(b.Over.Good) / float64(b.able()) })
	late := median(func(b Bout) float64 { return b.Over.P99.Seconds() / max(b.Normal.P99.Seconds(), 0.001) })
	shed := median(func(b Bout) float64 { return float64(b.Over.Shed) })
	fmt.Fprintf(o.Out, "medians: goodput at 3 times the capacity %.2f of the best, p99 %.2f of the normal one, %.0f/s shed; afterwards: %v\n", good, late, shed, after)
	promise := func(kept bool, format string, args ...any) {
		if !kept {
			broken = append(broken, fmt.Errorf(format, args...))
		}
	}
	promise(good >= 0.9, "goodput at 3 times the capacity is %.2f of the best, want 0.90", good)
	promise(late < 2, "p99 of those let in is %.2f of the normal one, want less than 2", late)
	promise(shed > 0, "nobody was told to come back later")
	promise(after.Shed+after.Failed <= after.Good/100, "afterwards it still refuses: %v", after)
	return broken
}

// slow plays slowloris: heads, bodies and readers that never come to an end, and servers that
// do not answer.
func (o Overload) slow(ctx context.Context, n *capped) (broken []error) {
	const clients = 300
	before := n.rss()
	for _, kind := range []struct{ name, say, more string }{
		{"heads", "GET / HTTP/1.1\r\nHost: h\r\nX: ", "x"},
		{"bodies", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n", "x"},
		{"readers", "GET /bytes/4000000 HTTP/1.1\r\nHost: h\r\n\r\n", ""},
		{"servers", "GET /slow/1m HTTP/1.1\r\nHost: h\r\n\r\n", ""},
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
		f := o.beside(ctx, n, 200, 20)
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
	f := o.beside(ctx, n, 100, 10)
	fmt.Fprintf(o.Out, "after %d connections with 128 descriptors: good %d/s of %d/s\n", len(all), f.Good, f.Offered)
	if f.Good < f.Offered*9/10 {
		broken = append(broken, fmt.Errorf("after all descriptors were taken only %d/s of %d/s are answered", f.Good, f.Offered))
	}
	return append(broken, n.alive())
}

// beside sends few requests for a while.
func (o Overload) beside(ctx context.Context, n *capped, rate, conns int) Flood {
	const long = 3 * time.Second
	f := &flood{to: netip.MustParseAddrPort(n.at), rate: rate, conns: conns, even: true}
	_ = f.run(ctx, long) // what it could not do is missed
	return f.between(long/3, long-long/10)
}
