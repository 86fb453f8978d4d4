package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/ha"
	"proxyd/internal/vip"
	"proxyd/internal/vip/relay"
)

// clients is what has the connections of an address that was handed over: the engine.
type clients interface {
	Count(local netip.Addr) int
	Retire(local netip.Addr, force bool)
}

// everyone is the connections of this process with those that processes before it let end.
type everyone struct {
	here   clients
	before *predecessor
}

func (e everyone) Count(local netip.Addr) int { return e.here.Count(local) + e.before.Count(local) }

func (e everyone) Retire(local netip.Addr, force bool) {
	e.before.Retire(local, force)
	e.here.Retire(local, force)
}

const (
	// countEvery is how often the connections of a drained address are counted.
	countEvery = time.Second
	// stragglers is how long a drained address without a connection goes on accepting:
	// neighbours that missed every announcement still send to it.
	stragglers = 30 * time.Second
	// lastShare of a drain is for saying goodbye: idle connections are closed then, and
	// answers say Connection: close. No longer than lastMost.
	lastShare = 5
	lastMost  = 30 * time.Second
)

// openRelay gets ready what keeps older connections alive when an address comes here.
func (k *cluster) openRelay(c *config.Config, d *vip.Device) error {
	way := relay.Way(c.Cluster.Handover)
	if len(c.Cluster.Join) == 0 {
		way = relay.Plain // there is nobody to hand anything over
	}
	conf := relay.Config{Way: way, Mark: proxy.ConnectionMark(c), State: c.Node.State, Keep: k.from.lives()}
	if err := d.OpenRelay(conf); err != nil {
		return fmt.Errorf("%s: cluster.handover = %q on %s: %w", c.Name, c.Cluster.Handover, d.Name(), err)
	}
	r := d.Relay()
	if listener, _ := c.BoundToVIP(); r.Way() == relay.Nftables && listener != "" { // only auto comes here
		conf.Way = relay.Plain
		if err := d.OpenRelay(conf); err != nil {
			return err
		}
		k.log.Warn("a hand-over resets connections on this host", "interface", d.Name(), "listener", listener,
			"why", errors.Join(r.Why(), errors.New("nftables: the listener is bound to a virtual address")))
		return nil
	}
	switch {
	case way == relay.Auto && r.Way() == relay.Plain:
		k.log.Warn("a hand-over resets connections on this host", "interface", d.Name(), "why", r.Why())
	case way != relay.Plain:
		k.log.Info("older connections outlive a hand-over", "interface", d.Name(), "way", r.Way())
	}
	return nil
}

// draining reports whether this node serves connections of an address that it let go.
func (k *cluster) draining() bool {
	for _, keeper := range k.now().keepers {
		if keeper.Status().State == vip.Parked {
			return true
		}
	}
	return false
}

// drains returns who serves older connections of an address, in the words of the admin API.
func drains(v ha.VIPView) []control.Drain {
	all := []control.Drain{}
	for _, d := range v.Drains {
		all = append(all, control.Drain{Node: d.Node, Connections: d.Conns, Until: time.Now().Add(d.Left).UTC().Truncate(time.Second)})
	}
	return all
}

// awaitDrains adds to the result of a hand-over how many connections the old holder goes on
// serving, as soon as they are counted.
func (k *cluster) awaitDrains(ctx context.Context, r *control.FailoverResult) {
	ctx, cancel := context.WithTimeout(ctx, 2*countEvery)
	defer cancel()
	for {
		v, err := k.node.Status(ctx)
		if err != nil {
			return
		}
		n, known := 0, true
		for _, vv := range v.VIPs {
			for _, d := range vv.Drains {
				if !slices.Contains(r.VIPs, vv.Name) || r.From != "" && d.Node != r.From {
					continue
				}
				n += d.Conns
				known = known && d.Conns >= 0
				until := time.Now().Add(d.Left).UTC().Truncate(time.Second)
				r.Until = &until
			}
		}
		if r.Until == nil {
			return // it drains nothing
		}
		if known {
			r.Connections = n
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(countEvery / 50):
		}
	}
}

// setDrain changes how long addresses that are handed over go on accepting.
func (k *cluster) setDrain(d time.Duration) {
	for _, keeper := range k.now().keepers {
		if err := keeper.SetDrain(d); err != nil {
			k.log.Warn("cluster.drain", "vip", keeper.Addr(), "error", err)
		}
	}
}

// watchDrains counts the connections of addresses that were let go, lets them end when the
// drain's end is near, and ends a drain that nobody needs, until ctx ends.
func (k *cluster) watchDrains(ctx context.Context) {
	watches := map[*vip.Keeper]*drainWatch{}
	every := countEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(clock.Next(every)):
		case <-k.moved: // an address may be one to look after now
		}
		every = countEvery
		was := watches
		watches = map[*vip.Keeper]*drainWatch{} // the VIPs may be others now
		for name, keeper := range k.now().keepers {
			w := was[keeper]
			if w == nil {
				w = &drainWatch{keeper: keeper, conns: k.clients}
			}
			watches[keeper] = w
			if said := w.look(clock.Now()); said != "" {
				k.log.Info(said, "vip", name)
			}
			if w.since != 0 {
				every = countEvery / 4
			}
		}
	}
}

// A drainWatch looks after one address.
type drainWatch struct {
	keeper  *vip.Keeper
	conns   clients
	since   clock.Instant // of the drain that is watched; 0: none
	counted clock.Instant
	used    clock.Instant // when there was a connection
	parting bool
}

// look does what is due, and says what an operator should know of it.
func (w *drainWatch) look(now clock.Instant) (said string) {
	s := w.keeper.Status()
	if s.State != vip.Parked {
		w.since = 0
		return ""
	}
	addr := w.keeper.Addr()
	if w.since != s.Since {
		*w = drainWatch{keeper: w.keeper, conns: w.conns, since: s.Since, used: now}
	}
	if s.Conns >= 0 && now.Sub(w.counted) < countEvery {
		return ""
	}
	w.counted = now
	n := w.conns.Count(addr)
	w.keeper.NoteConns(n)
	if n > 0 {
		w.used = now
	}
	if w.keeper.Status().Since != s.Since {
		return "" // it came back while they were counted, and they are the holder's
	}
	last := min(s.Until.Sub(s.Since)/lastShare, lastMost)
	switch {
	case now.Sub(w.used) >= stragglers:
		if w.keeper.EndDrain() == nil {
			return "drain ended: no connection is left"
		}
	case n > 0 && s.Until.Sub(now) < 2*countEvery:
		w.conns.Retire(addr, true)
		return fmt.Sprintf("drain time is over: %d connections are cut off", n)
	case n > 0 && s.Until.Sub(now) < last:
		w.conns.Retire(addr, false) // again and again: some may have come since
		if !w.parting {
			w.parting = true
			return fmt.Sprintf("drain time is nearly over: %d connections are let go", n)
		}
	}
	return ""
}
