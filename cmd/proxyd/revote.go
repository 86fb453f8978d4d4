package main

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"proxyd/internal/baton"
	"proxyd/internal/config"
)

// revotes reports whether of the cluster and its VIPs c changes the list of voters alone, and
// this node is the same one of them. Then nothing that was promised need be forgotten.
func (k *cluster) revotes(c *config.Config) bool {
	was := k.now().config.Cluster.Join
	if len(was) == 0 || len(c.Cluster.Join) == 0 || slices.Equal(was, c.Cluster.Join) || !k.liveBut(c) || !k.sameVIPs(c) {
		return false
	}
	self, _, err := k.identity(c)
	return err == nil && self == k.node.Self
}

// revote puts a cluster part that counts the voters of c in the place of the one that runs. It
// takes over the sockets, the leases and promises with their instants, and the addresses as
// they are, as another process does in an upgrade: no VIP moves, and the other nodes notice
// nothing but the list. On error all is as before. n.mu is held.
func (n *node) revote(c *config.Config) error {
	old, began := n.cluster, time.Now()
	files, err := old.sockets()
	if err != nil {
		return err
	}
	from := &predecessor{legacy: baton.NewLegacy(files)}
	var stood time.Duration
	from.within = func(take func(json.RawMessage) error) error {
		halted := time.Now()
		known, settle, err := old.halt()
		if err != nil {
			return err
		}
		err = take(known)
		settle(err == nil)
		stood = time.Since(halted)
		return err
	}
	next, err := startCluster(context.Background(), n, c, from)
	from.legacy.Close()
	if err != nil {
		old.rejoin()
		return err
	}
	old.stop()
	next.rejoin()
	n.cluster = next
	n.standNow()
	n.log.Info("the voters are others, and nothing has moved", "voters", len(c.Cluster.Join), "took", time.Since(began).Round(time.Millisecond), "pause", stood.Round(100*time.Microsecond))
	return nil
}

// rejoin has what is shared told by the gossip of k.
func (k *cluster) rejoin() {
	if k.gossip != nil {
		k.shared.connect(k.gossip.Tell)
	}
}
