package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"proxyd/internal/control"
)

// A Carry drill hands a VIP over, again and again, while clients have connections to it
// that must not notice: slow downloads, WebSockets, and connections that idle until they
// have a request. Each way to keep them is played on a stage of its own.
type Carry struct {
	Plan   Plan
	Rounds int // hand-overs of each kind, there and back in turns
	Live   int // connections that are held; 0: 200
	Rate   int // new connections a second; 0: 500
	Out    io.Writer
}

// A carryKind is one thing that Carry plays.
type carryKind struct {
	name    string
	cluster string // lines of [cluster]
	six     bool   // the connections are to the IPv6 address
	ends    bool   // the drain ends while they are there: in good order, or not noticed
	upgrade bool   // who has them sent on changes its process twice meanwhile
	drained bool   // who drains them changes its process, once, and is not asked for longer than a drain without any lasts
}

func carryKinds() []carryKind {
	return []carryKind{
		{name: "eBPF", cluster: `handover = "ebpf"`},
		{name: "nftables", cluster: `handover = "nftables"`},
		{name: "eBPF, IPv6", cluster: `handover = "ebpf"`, six: true},
		{name: "nftables, IPv6", cluster: `handover = "nftables"`, six: true},
		{name: "eBPF, upgraded", cluster: `handover = "ebpf"`, upgrade: true},
		{name: "nftables, upgraded", cluster: `handover = "nftables"`, upgrade: true},
		{name: "eBPF, drain upgraded", cluster: `handover = "ebpf"`, drained: true},
		{name: "drain of 5 s ends", cluster: "handover = \"ebpf\"\ndrain = \"5s\"", ends: true},
	}
}

// Carried is what a kind came to.
type Carried struct {
	Kind   string
	Outage []time.Duration
	Failed map[Outcome]int // of the new connections
	Asked  int
	Live   int
	Broken []error // live connections that did not end well
}

// Run plays every kind and returns an error if a connection noticed.
func (c Carry) Run(ctx context.Context) error {
	c.Rounds, c.Live, c.Rate = cmp.Or(c.Rounds, 10), cmp.Or(c.Live, 200), cmp.Or(c.Rate, 500)
	t := Table{Head: []string{"kept by", "hand-overs", "outage", "max", "new", "failed", "how", "live", "broken"}}
	var noticed []error
	for _, k := range carryKinds() {
		r, err := c.play(ctx, k)
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", k.name, err), t.WriteText(c.Out), errors.Join(noticed...))
		}
		failed := 0
		for _, n := range r.Failed {
			failed += n
		}
		t.Add(r.Kind, fmt.Sprint(len(r.Outage)), show(Median(r.Outage)), show(slices.Max(r.Outage)),
			fmt.Sprint(r.Asked), fmt.Sprint(failed), kinds(r.Failed), fmt.Sprint(r.Live), fmt.Sprint(len(r.Broken)))
		if failed > 0 || len(r.Broken) > 0 {
			noticed = append(noticed, fmt.Errorf("%s: %d new connections failed, %d live ones broke", k.name, failed, len(r.Broken)), errors.Join(r.Broken...))
		}
	}
	if err := t.WriteText(c.Out); err != nil {
		return err
	}
	return errors.Join(noticed...)
}

// play hands over on one stage.
func (c Carry) play(ctx context.Context, k carryKind) (*Carried, error) {
	p := c.Plan
	p.Relay, p.Cluster, p.Six = "", k.cluster, k.six
	load := LoadSpec{Rate: c.Rate, Deadline: 3 * time.Second}
	target := address(vipOctet).Addr()
	if k.six {
		target = address6(vipOctet).Addr()
	}
	load.Target = netip.AddrPortFrom(target, 80).String()
	rig, err := NewRig(p, load)
	if err != nil {
		return nil, err
	}
	defer rig.Close()
	if err := rig.Stage.Start(ctx, patience); err != nil {
		return nil, err
	}
	if err := rig.Steady(ctx, patience); err != nil {
		return nil, err
	}
	held, err := openLive(ctx, rig.Stage, target, c.Live)
	if err != nil {
		return nil, err
	}
	defer held.close()
	out := &Carried{Kind: k.name, Failed: map[Outcome]int{}, Live: c.Live}
	home, rounds := rig.Holder(), c.Rounds
	if k.drained {
		rounds = 1 // a long one
	}
	for range rounds {
		if err := rig.Steady(ctx, patience); err != nil {
			return nil, err
		}
		holder := rig.Holder()
		if holder == nil {
			return nil, fmt.Errorf("nobody alone answers for %s", rig.Stage.VIP)
		}
		began := Now()
		to := rig.Stage.Other(holder)
		if err := handOver(ctx, holder, to); err != nil {
			return nil, err
		}
		if k.upgrade && to != home {
			for range 2 {
				if _, err := to.Upgrade(ctx, ""); err != nil {
					return nil, err
				}
			}
		}
		last := 2 * time.Second
		switch {
		case k.ends:
			last = 7 * time.Second
		case k.drained:
			last = 40 * time.Second
			if _, err := holder.Upgrade(ctx, ""); err != nil {
				return nil, err
			}
			// The process that goes lets those end that have nothing in progress.
			out.Broken = append(out.Broken, held.ended()...)
		default:
			if err := held.check(ctx); err != nil {
				out.Broken = append(out.Broken, err)
			}
		}
		if err := pause(ctx, last-Now().Sub(began)); err != nil {
			return nil, err
		}
		m := rig.Measure(k.name, unnoticed(), began, Now())
		out.Outage, out.Asked = append(out.Outage, m.Outage), out.Asked+m.Requests
		for how, n := range m.Failed {
			out.Failed[how] += n
		}
		fmt.Fprintln(c.Out, m)
		if k.ends {
			out.Broken = append(out.Broken, held.ended()...)
			held.close()
			if err := rig.Steady(ctx, patience); err != nil {
				return nil, err
			}
			if held, err = openLive(ctx, rig.Stage, target, c.Live); err != nil {
				return nil, err
			}
		}
	}
	if !k.ends {
		out.Broken = append(out.Broken, held.finish(ctx)...)
	}
	return out, rig.Load.Err()
}

// live are connections that clients keep: an idle one in two of five, a WebSocket in two
// of five, a slow download in one.
type live struct {
	idle      []*idleConn
	sockets   sockets
	downloads []*download
}

// carriedSize is of a download: more than the buffers on its way hold, at the pace at
// which it is read.
const carriedSize = 24 << 20

func openLive(ctx context.Context, s *Stage, vip netip.Addr, n int) (l *live, err error) {
	l = &live{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	through := &http.Client{Transport: &http.Transport{DialContext: s.client.dialContext, DisableKeepAlives: true}}
	host := vip.String()
	if vip.Is6() {
		host = "[" + host + "]"
	}
	for range n / 5 {
		l.downloads = append(l.downloads, beginDownload(ctx, through, "http://"+host, carriedSize, 4<<10))
	}
	if l.sockets, err = openSockets(ctx, through, host, n*2/5); err != nil {
		return l, err
	}
	for range n - n/5 - n*2/5 {
		c, err := s.client.dialContext(ctx, "tcp", netip.AddrPortFrom(vip, 80).String())
		if err != nil {
			return l, fmt.Errorf("open a connection that idles: %w", err)
		}
		i := &idleConn{Conn: c, r: bufio.NewReaderSize(c, 1024)}
		l.idle = append(l.idle, i)
		if err := i.ask(); err != nil {
			return l, fmt.Errorf("the first request of a connection that idles: %w", err)
		}
	}
	return l, nil
}

// check lets every one be used once. The downloads go on all the time.
func (l *live) check(ctx context.Context) error {
	errs := []error{l.sockets.all(ctx)}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, c := range l.idle {
		all.Go(func() {
			if err := c.ask(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("a request after a while: %w", err))
			}
		})
	}
	all.Wait()
	for _, d := range l.downloads {
		select {
		case err := <-d.done:
			errs = append(errs, fmt.Errorf("a download: %w", err))
			d.done <- err
		default:
		}
	}
	return errors.Join(errs...)
}

// finish uses all once more and reads the downloads to their end.
func (l *live) finish(ctx context.Context) (broken []error) {
	if err := l.check(ctx); err != nil {
		broken = append(broken, err)
	}
	for _, d := range l.downloads {
		if err := d.end(ctx); err != nil {
			broken = append(broken, err)
		}
	}
	return broken
}

// ended lets the idle connections go and returns which were not closed in good order.
func (l *live) ended() (broken []error) {
	for _, c := range l.idle {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
			broken = append(broken, fmt.Errorf("an idle connection that is let go ends with %v, want its end", err))
		}
		c.Close()
	}
	l.idle = nil
	return broken
}

func (l *live) close() {
	for _, d := range l.downloads {
		d.cancel()
	}
	l.sockets.close()
	for _, c := range l.idle {
		c.Close()
	}
}

// An idleConn is a connection that is kept and has a request now and then.
type idleConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *idleConn) ask() error {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // a closed connection fails right after
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: lab.example\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Close {
		return fmt.Errorf("status %d, close %v", resp.StatusCode, resp.Close)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// handOver asks a node to give its VIPs to another, as hactl failover does.
func handOver(ctx context.Context, from, to *Node) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := from.Client().Failover(ctx, control.Failover{To: to.Name, Reason: "lab"})
	if err != nil {
		return fmt.Errorf("hand over from %s to %s: %w", from.Name, to.Name, err)
	}
	return nil
}
