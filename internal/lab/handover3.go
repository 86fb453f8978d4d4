package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"
)

// A HandOver3 drill hands a VIP over, there and back during the drains, while clients have
// connections of HTTP/3 to it that must not notice: slow downloads, and connections that idle
// until they have a request. Some are opened after each hand-over, so that each node has its
// own. Other clients connect anew all the time.
type HandOver3 struct {
	Plan   Plan
	Rounds int // hand-overs of each kind, there and back in turns
	Live   int // connections that are held at the begin, and half as many after each hand-over; 0: 20
	Rate   int // new connections of HTTP/3 a second; 0: 20
	Out    io.Writer

	kinds []handOver3Kind // nil: all
}

// A handOver3Kind is one thing that a HandOver3 plays.
type handOver3Kind struct {
	name    string
	cluster string // lines of [cluster]
	six     bool   // the connections are to the IPv6 address
	ends    bool   // the drain ends while they are there, in good order
}

func handOver3Kinds() []handOver3Kind {
	return []handOver3Kind{
		{name: "eBPF", cluster: `handover = "ebpf"`},
		{name: "nftables", cluster: `handover = "nftables"`},
		{name: "eBPF, IPv6", cluster: `handover = "ebpf"`, six: true},
		{name: "nftables, IPv6", cluster: `handover = "nftables"`, six: true},
		{name: "drain of 5 s ends", cluster: "handover = \"ebpf\"\ndrain = \"5s\"", ends: true},
	}
}

// Run plays every kind and returns an error if a connection noticed.
func (d HandOver3) Run(ctx context.Context) error {
	d.Rounds, d.Live, d.Rate = cmp.Or(d.Rounds, 10), cmp.Or(d.Live, 20), cmp.Or(d.Rate, 20)
	t := Table{Head: []string{"kept by", "hand-overs", "HTTP/1.1 outage", "new", "failed", "live", "broken", "packets sent on"}}
	var noticed []error
	if d.kinds == nil {
		d.kinds = handOver3Kinds()
	}
	for _, k := range d.kinds {
		r, err := d.play(ctx, k)
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", k.name, err), t.WriteText(d.Out), errors.Join(noticed...))
		}
		t.Add(k.name, fmt.Sprint(len(r.outage)), show(slices.Max(r.outage)), fmt.Sprint(r.asked), fmt.Sprint(len(r.failed)),
			fmt.Sprint(r.live), fmt.Sprint(len(r.broken)), fmt.Sprint(r.sentOn))
		if len(r.failed) > 0 || len(r.broken) > 0 {
			noticed = append(noticed, fmt.Errorf("%s: %d new connections failed, %d live ones broke", k.name, len(r.failed), len(r.broken)),
				errors.Join(r.failed...), errors.Join(r.broken...))
		}
		if r.sentOn == 0 {
			noticed = append(noticed, fmt.Errorf("%s: no packet was sent on, so nothing was shown", k.name))
		}
	}
	if err := t.WriteText(d.Out); err != nil {
		return err
	}
	return errors.Join(noticed...)
}

// handed3 is what a kind came to.
type handed3 struct {
	outage []time.Duration // of the clients of HTTP/1.1
	asked  int             // connections that were new
	failed []error         // of those
	live   int
	broken []error // live connections that did not end well
	sentOn int     // packets
}

// play hands over on one stage.
func (d HandOver3) play(ctx context.Context, k handOver3Kind) (*handed3, error) {
	p := d.Plan
	p.Relay, p.Cluster, p.Six, p.Secure = "", k.cluster, k.six, true
	rig, err := NewRig(p, LoadSpec{Rate: 100, Deadline: 3 * time.Second})
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
	vip := rig.Stage.VIP
	if k.six {
		vip = address6(vipOctet).Addr()
	}
	at := netip.AddrPortFrom(vip, 443)
	held := &live3{host: rig.Stage.client, at: at}
	defer held.close()
	if err := held.open(ctx, d.Live); err != nil {
		return nil, err
	}
	fresh := beginFresh3(ctx, rig.Stage.client, at, d.Rate)
	defer fresh.end()
	out := &handed3{}
	for range d.Rounds {
		if err := rig.Steady(ctx, patience); err != nil {
			return nil, err
		}
		holder := rig.Holder()
		if holder == nil {
			return nil, fmt.Errorf("nobody alone answers for %s", rig.Stage.VIP)
		}
		began := Now()
		if err := handOver(ctx, holder, rig.Stage.Other(holder)); err != nil {
			return nil, err
		}
		last := 2 * time.Second
		if k.ends {
			last = 7 * time.Second
		} else {
			out.broken = append(out.broken, held.check(ctx)...)
			if err := held.open(ctx, d.Live/2); err != nil {
				return nil, err
			}
		}
		if err := pause(ctx, last-Now().Sub(began)); err != nil {
			return nil, err
		}
		m := rig.Measure(k.name, unnoticed(), began, Now())
		out.outage = append(out.outage, m.Outage)
		fmt.Fprintln(d.Out, m)
		if k.ends {
			out.live += held.size()
			out.broken = append(out.broken, held.ended(ctx)...)
			held.close()
			if err := held.open(ctx, d.Live); err != nil {
				return nil, err
			}
		}
	}
	if !k.ends {
		out.live = held.size()
		out.broken = append(out.broken, held.finish(ctx)...)
	}
	out.asked, out.failed = fresh.end()
	for _, n := range rig.Stage.Nodes {
		page, err := n.Client().Metrics(ctx)
		if err != nil {
			return nil, err
		}
		out.sentOn += int(labelled(page, "proxyd_vip_relayed_packets_total"))
	}
	return out, rig.Load.Err()
}
