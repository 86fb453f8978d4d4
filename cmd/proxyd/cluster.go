package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha"
	"proxyd/internal/ha/beat"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/gossip"
	"proxyd/internal/ha/keyring"
	"proxyd/internal/history"
	"proxyd/internal/vip"
	"proxyd/internal/vip/fence"
	"proxyd/internal/vip/relay"
)

// A cluster is this node's part in holding the virtual addresses: the election with its
// mesh, and the keepers of the addresses on their interfaces.
type cluster struct {
	log     *slog.Logger
	from    *predecessor
	node    *ha.Node
	mesh    *beat.Mesh      // nil on a node alone
	gossip  *gossip.Gossip  // likewise
	keys    *keyring.Keeper // likewise
	set     atomic.Pointer[addresses]
	shared  *shared
	links   chan struct{} // one of the interfaces went up or down
	moved   chan struct{} // an address has another holder
	record  *recorder
	changes *changes
	lost    func() error // why this host has not the address any more by which the others know it
	clients clients

	sysctls *vip.Sysctls
	devices map[string]*vip.Device
	ports   map[string]*vip.Port
	cancel  context.CancelFunc
	loops   sync.WaitGroup
}

// addresses are the VIPs as they are configured now, with the keepers of those that this
// host may hold. They never change; a reload puts others in their place.
type addresses struct {
	config  *config.Config
	keepers map[string]*vip.Keeper // by VIP
}

// now returns what is configured now.
func (k *cluster) now() *addresses { return k.set.Load() }

// startCluster opens everything that c's VIPs and cluster need and starts taking part.
// It returns nil and no error if there is neither. An error names what is missing on
// this host; nothing is left open then. It goes on from where from is, if that lives.
func startCluster(ctx context.Context, n *node, c *config.Config, from *predecessor) (_ *cluster, err error) {
	if !from.lives() {
		sweepLeftovers(c, n.log)
	}
	if len(c.VIP) == 0 && len(c.Cluster.Join) == 0 {
		return nil, from.takeOver(n, nil)
	}
	k := &cluster{
		log: n.log, from: from, shared: n.shared, record: n.record, changes: newChanges(), links: make(chan struct{}, 1), moved: make(chan struct{}, 1), clients: everyone{n.engine, n.from},
		devices: map[string]*vip.Device{}, ports: map[string]*vip.Port{},
	}
	k.set.Store(&addresses{config: c, keepers: map[string]*vip.Keeper{}})
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	if err := os.MkdirAll(c.Node.State, 0o750); err != nil {
		return nil, fmt.Errorf("node.state: %w", err)
	}
	self, voters, err := k.identity(c)
	if err != nil {
		return nil, err
	}
	if err := k.openAddresses(c, self, voters); err != nil {
		return nil, err
	}
	terms, term, err := ha.OpenTerms(c.Node.State)
	if errors.Is(err, ha.ErrUnreserved) {
		k.log.Error("node.state cannot be written: this node takes part all the same", "error", err)
	} else if err != nil {
		return nil, err
	}
	conf := ha.Config{
		Wire: speaks(),
		Self: self, Voters: voters, Timing: c.Cluster.Timing, VIPs: c.VIP, Holders: k.now().holders(),
		Now: clock.Now, Log: n.log, Name: c.Node.Name, Version: version, Hash: c.Hash, Terms: terms, Term: term,
		Witness: c.Cluster.Witness, Arbiters: c.Cluster.Arbiter, Reach: k.reach,
		Uptime: func() time.Duration { return time.Since(n.started) },
	}
	k.lost = func() error { return nil }
	if len(voters) > 1 && lostAddress(self) == nil { // there are hosts that never list it
		k.lost = func() error { return lostAddress(self) }
	}
	conf.Lost = k.lost
	name := c.Cluster.Name
	for _, v := range vipsOf(c) {
		n.taken.WithLabelValues(name, v.Name) // the series is there from the start, at 0
	}
	conf.OnFact = func(f ha.Fact) {
		n.record.met(f)
		k.tellFact(n.notify, f)
	}
	conf.OnChange = func(c ha.Change) {
		n.record.changed(c)
		k.tellChange(n.notify, c)
		k.changes.add(c)
		poke(k.moved)
		if c.Took > 0 {
			n.taken.WithLabelValues(name, c.VIP).Observe(c.Took.Seconds())
		}
	}
	if len(voters) > 1 {
		if err := k.openMesh(n, c, self, voters); err != nil {
			return nil, err
		}
		conf.Mesh = k.mesh
	}
	if k.node, err = ha.New(conf); err != nil {
		return nil, err
	}
	if err := from.takeOver(n, k.adopt); err != nil {
		return nil, err
	}
	ctx, k.cancel = context.WithCancel(ctx)
	if k.mesh != nil {
		k.loops.Go(func() { k.mesh.Run(ctx) })
		k.loops.Go(func() { k.gossip.Run(ctx) })
	}
	k.loops.Go(func() {
		// It ends with ctx; anything else leaves this node without a vote, and the
		// others see that it is silent.
		if err := k.node.Run(ctx); err != nil && ctx.Err() == nil {
			k.log.Error("the cluster part ended; traffic goes on", "error", err)
		}
	})
	if from != nil {
		// What the part before this one sends on it ends now. The loop, once it answers, has had
		// its first turn, in which it said of every address where packets go.
		if _, err := k.node.Status(ctx); err != nil {
			k.log.Warn("older connections are perhaps not kept", "error", err)
		} else if err := k.endOthers(c.Node.State); err != nil {
			k.log.Warn("what the process before this one sends on goes on until its time is over", "error", err)
		}
	}
	k.loops.Go(func() { k.followChanges(ctx, n) })
	k.loops.Go(func() { k.watchFitness(ctx, n) })
	k.loops.Go(func() { k.watchDrains(ctx) })
	return k, nil
}

// endOthers ends what the part before this one sends on.
func (k *cluster) endOthers(state string) error {
	var relays []*relay.Relay
	for _, d := range k.devices {
		if r := d.Relay(); r != nil {
			relays = append(relays, r)
		}
	}
	return relay.EndOthers(state, relays)
}

// identity finds which voter this node is.
func (k *cluster) identity(c *config.Config) (election.ID, []election.ID, error) {
	if len(c.Cluster.Join) == 0 {
		return election.ID(c.Node.Name), nil, nil
	}
	have, err := hostAddrs()
	if err != nil {
		return "", nil, err
	}
	self, err := ha.Identify(c.Cluster.Join, c.Cluster.Bind, have)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	return self, ha.Voters(c.Cluster.Join), nil
}

// openAddresses opens the interfaces of the VIPs, removes what an earlier life left
// there, and makes a keeper for each.
func (k *cluster) openAddresses(c *config.Config, self election.ID, voters []election.ID) error {
	if len(held(c)) == 0 {
		return nil
	}
	if err := vip.Privileges(); err != nil {
		return fault{exitPermission, err}
	}
	k.sysctls = new(vip.Sysctls)
	if err := k.sysctls.Global(); err != nil {
		return err
	}
	var peers []netip.Addr
	for _, v := range voters {
		if a, err := netip.ParseAddrPort(string(v)); err == nil && v != self {
			peers = append(peers, a.Addr())
		}
	}
	on := map[string][]netip.Prefix{}
	for _, v := range held(c) {
		on[v.Interface] = append(on[v.Interface], v.Address)
	}
	for name, addresses := range on {
		d, err := vip.OpenLink(name, k.sysctls, k.log)
		if err != nil {
			return fmt.Errorf("%s: vip: %w", c.Name, err)
		}
		k.devices[name] = d
		for _, a := range addresses {
			if err := d.InReach(a); err != nil {
				return fmt.Errorf("%s: vip: %w", c.Name, err)
			}
		}
		if !k.from.lives() { // else they are the other process's, and soon ours
			if err := k.sweep(d, addresses); err != nil {
				return err
			}
		}
		if err := d.PutUpFence(fence.Config{
			Addresses: addrs(addresses), Kind: fence.Kind(c.Cluster.Fence), State: c.Node.State, Token: true, Log: k.log, Keep: k.from.lives(),
		}); err != nil {
			return fault{exitPermission, fmt.Errorf("%s: cluster.fence: %w", c.Name, err)}
		}
		if err := k.openRelay(c, d); err != nil {
			return err
		}
		k.ports[name] = vip.OpenPort(d, vip.PortOptions{Now: clock.Now, Log: k.log, Peers: peers, OnLink: k.linkChanged})
	}
	for _, v := range held(c) {
		keeper, err := k.keep(v)
		if err != nil {
			return err
		}
		k.now().keepers[v.Name] = keeper // nobody else looks yet
	}
	return nil
}

// sweep removes addresses that an earlier life left.
func (k *cluster) sweep(d *vip.Device, addresses []netip.Prefix) error {
	stale, err := d.Sweep(addresses)
	if len(stale) > 0 {
		k.log.Info("removed addresses of an earlier life", "interface", d.Name(), "addresses", stale)
	}
	return err
}

// keep makes a keeper for v on its interface, which is open.
func (k *cluster) keep(v *config.VIP) (*vip.Keeper, error) {
	return k.ports[v.Interface].Keeper(v.Address, vip.Options{
		Drain: k.now().config.Cluster.Drain,
		OnConflict: func(mac net.HardwareAddr) {
			k.log.Warn("vip conflict: another host answers for it", "vip", v.Name, "mac", mac.String())
			k.record.note(history.Entry{Kind: history.Conflict, VIP: v.Name, Text: mac.String()})
		},
	})
}

func (k *cluster) openMesh(n *node, c *config.Config, self election.ID, voters []election.ID) error {
	var err error
	if k.keys, err = k.openKeys(c, voters); err != nil {
		return err
	}
	g := gossip.Config{Cluster: c.Cluster.Name, Secrets: k.keys.Secrets(), Self: self, Voters: voters, Log: k.log, State: k.shared, Answer: n.answerPeer, Wire: speaks(),
		ListenTCP: k.from.memberTCP, ListenUDP: k.from.memberUDP}
	// The mesh gives the carrier what it brings, and the carrier is opened first.
	g.Receive = func(b []byte) { k.mesh.Receive(b) }
	carrier := &lateCarrier{}
	devices := slices.Sorted(maps.Keys(k.devices))
	var paths []beat.Path
	for _, what := range c.Cluster.Paths {
		p, err := beat.FindPath(what)
		if err != nil {
			return fmt.Errorf("cluster.paths: %w", err)
		}
		paths = append(paths, p)
	}
	own, err := beat.Address(self)
	if err != nil {
		return err
	}
	k.mesh, err = beat.Listen(beat.Config{
		Cluster: c.Cluster.Name, Secrets: k.keys.Secrets(), Self: self, Voters: voters,
		Interface: beat.InterfaceOf(own.Addr()), Paths: paths,
		Heartbeat: c.Cluster.Timing.Heartbeat, Now: clock.Now, Log: k.log, Devices: devices, Unheard: k.askAnew, Open: k.from.openers(), Wire: speaks(),
	}, carrier)
	if err != nil {
		return err
	}
	if k.gossip, err = gossip.Start(g); err != nil {
		return err
	}
	carrier.Gossip = k.gossip
	k.shared.connect(k.gossip.Tell)
	return nil
}

// A lateCarrier is the gossip, which is opened after the mesh that it belongs to and
// before that runs.
type lateCarrier struct{ *gossip.Gossip }

// linkChanged has the fitness of this node looked at now.
func (k *cluster) linkChanged(bool) { poke(k.links) }

// poke says that there is something to look at.
func poke(sign chan struct{}) {
	select {
	case sign <- struct{}{}:
	default: // it is to be looked at already
	}
}

// askAnew lets the kernel find a peer at once that is reachable again.
func (k *cluster) askAnew(peer netip.Addr) {
	if err := vip.AskAnew(peer); err != nil {
		k.log.Debug("a peer that is not heard", "error", err)
	}
}

// reach returns nil if a host gave a sign of life before ctx ended: one on the network of
// a virtual address is asked there, any other by what goes through routers.
func (k *cluster) reach(ctx context.Context, a netip.Addr) error {
	for _, v := range vipsOf(k.now().config) {
		if p := k.ports[v.Interface]; p != nil && v.Address.Contains(a) {
			return p.Reach(ctx, a)
		}
	}
	return vip.Reach(ctx, a)
}

// leave hands every VIP over and tells the others that this node goes.
func (k *cluster) leave(ctx context.Context) {
	if err := k.node.Leave(ctx); err != nil {
		k.log.Warn("leave the cluster", "error", err)
	}
}

// stop ends taking part and takes the addresses away.
func (k *cluster) stop() {
	k.shared.connect(nil)
	if k.cancel != nil {
		k.cancel()
	}
	k.loops.Wait()
	k.close()
}

// close closes what was opened; what it cannot undo it says.
func (k *cluster) close() {
	var errs []error
	if k.from.lives() {
		for _, keeper := range k.now().keepers { // what one of them adopted already goes on being the other's
			if _, settle, err := keeper.Halt(); err == nil {
				settle(true)
			}
		}
	}
	if k.cancel == nil { // else both have ended with their loops
		if k.mesh != nil {
			k.mesh.Close()
		}
		if k.gossip != nil {
			errs = append(errs, k.gossip.Close())
		}
		k.shared.connect(nil)
	}
	for _, p := range k.ports {
		errs = append(errs, p.Close())
	}
	for _, d := range k.devices {
		if f := d.Fence(); f != nil && k.from.lives() { // the addresses behind it are another's
			errs = append(errs, f.Leave())
		}
		errs = append(errs, d.Close())
	}
	if k.sysctls != nil {
		errs = append(errs, k.sysctls.Restore())
	}
	if err := errors.Join(errs...); err != nil {
		k.log.Warn("close addresses", "error", err)
	}
}

// holders returns the keepers as the election knows them.
func (a *addresses) holders() map[string]ha.Holder {
	out := map[string]ha.Holder{}
	for name, keeper := range a.keepers {
		out[name] = keeper
	}
	return out
}

// live reports whether c can be put in force while taking part goes on: it says the same of
// the cluster, and its VIPs are on interfaces that are open.
func (k *cluster) live(c *config.Config) bool {
	return slices.Equal(k.now().config.Cluster.Join, c.Cluster.Join) && k.liveBut(c)
}

// liveBut reports whether c could be put in force so if it had the present list of voters.
func (k *cluster) liveBut(c *config.Config) bool {
	a, b := k.now().config.Cluster, c.Cluster
	return k.sameKeys(c) && a.Timing == b.Timing &&
		a.Witness == b.Witness && slices.Equal(a.Arbiter, b.Arbiter) && a.Fence == b.Fence && a.Handover == b.Handover && slices.Equal(a.Paths, b.Paths) &&
		!slices.ContainsFunc(held(c), func(v *config.VIP) bool { return k.ports[v.Interface] == nil })
}

// same reports whether c says the same of the cluster and its VIPs.
func (k *cluster) same(c *config.Config) bool { return k.live(c) && k.sameVIPs(c) }

func (k *cluster) sameVIPs(c *config.Config) bool {
	return slices.EqualFunc(vipsOf(k.now().config), vipsOf(c), func(x, y *config.VIP) bool {
		return x.Name == y.Name && x.Address == y.Address && x.Interface == y.Interface && x.Preempt == y.Preempt &&
			x.Follow == y.Follow && x.Spread == y.Spread && slices.Equal(x.Prefer, y.Prefer)
	})
}

// change puts the VIPs of c in force: those that are new, gone or other than before, while the
// rest notice nothing. On error all is as before.
func (k *cluster) change(n *node, c *config.Config) (err error) {
	was, next := k.now(), &addresses{config: c, keepers: map[string]*vip.Keeper{}}
	at := map[netip.Addr]*vip.Keeper{}
	for _, keeper := range was.keepers {
		at[keeper.Addr()] = keeper
	}
	defer func() {
		stays, goes := next, was
		if err != nil {
			stays, goes = was, next
		}
		k.abandon(goes, stays)
	}()
	for _, v := range held(c) {
		if keeper := at[v.Address.Addr()]; keeper != nil && was.interfaceOf(keeper) == v.Interface {
			next.keepers[v.Name] = keeper
			continue
		}
		d := k.devices[v.Interface]
		if err := d.InReach(v.Address); err != nil {
			return fmt.Errorf("%s: vip: %w", c.Name, err)
		}
		if _, err := d.Sweep([]netip.Prefix{v.Address}); err != nil {
			return err
		}
		if err := d.Fenced(v.Address.Addr()); err != nil {
			return fmt.Errorf("%s: vip.%s: %w", c.Name, v.Name, err)
		}
		keeper, err := k.keep(v)
		if err != nil {
			return err
		}
		next.keepers[v.Name] = keeper
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if err := k.node.Reconfigure(ctx, c.VIP, next.holders(), c.Hash); err != nil {
		return err
	}
	for _, v := range vipsOf(c) {
		n.taken.WithLabelValues(c.Cluster.Name, v.Name)
	}
	k.set.Store(next)
	if k.keys != nil {
		k.keys.Reconfigure(string(c.Cluster.Secret))
	}
	k.setDrain(c.Cluster.Drain)
	return nil
}

// abandon closes the keepers of a that b does not have. Their addresses may be anybody's from
// then on, this host's own too.
func (k *cluster) abandon(a, b *addresses) {
	for name, keeper := range a.keepers {
		if slices.Contains(slices.Collect(maps.Values(b.keepers)), keeper) {
			continue
		}
		err := keeper.Close()
		if err == nil { // one that is still there must stay silent
			err = k.devices[a.config.VIP[name].Interface].Unfenced(keeper.Addr())
		}
		if err != nil {
			k.log.Warn("close addresses", "vip", keeper.Addr(), "error", err)
		}
	}
}

// mayVote reports why the voters of c cannot come after those of now. A cluster that begins or
// ends has nobody to disagree with.
func (k *cluster) mayVote(c *config.Config) error {
	was := k.now().config.Cluster.Join
	if len(was) == 0 || len(c.Cluster.Join) == 0 || slices.Equal(ha.Voters(was), ha.Voters(c.Cluster.Join)) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	return k.node.MayVote(ctx, ha.Voters(c.Cluster.Join))
}

// interfaceOf returns where a keeper's address is.
func (a *addresses) interfaceOf(keeper *vip.Keeper) string {
	for name, other := range a.keepers {
		if other == keeper {
			return a.config.VIP[name].Interface
		}
	}
	return ""
}

// addrs returns the addresses of prefixes.
func addrs(ps []netip.Prefix) (all []netip.Addr) {
	for _, p := range ps {
		all = append(all, p.Addr())
	}
	return all
}
