package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"proxyd/internal/baton"
	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/ha"
	"proxyd/internal/vip"
)

// clusterState is what the cluster part of one process leaves to that of the next.
type clusterState struct {
	Node    json.RawMessage      `json:"node"`
	Mesh    json.RawMessage      `json:"mesh,omitempty"`
	Claims  map[string]vip.Claim `json:"claims"` // by VIP
	Sysctls map[string]string    `json:"sysctls"`
}

// mostPause is for how long nobody may decide anything, whatever the lease: the kernel takes
// an address away that is not prolonged for a second.
const mostPause = 400 * time.Millisecond

// patience is how long the other process may take to take over what is known: well below
// what makes a peer think that this node is gone.
func (k *cluster) patience() time.Duration {
	return min(k.now().config.Cluster.Timing.Lease/2, mostPause)
}

// sameCluster refuses an upgrade that would come with other voters or addresses: what is
// known of the present ones would be of no use.
func (n *node) sameCluster() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, err := config.Load(n.texts())
	if err != nil {
		return control.Invalid(err.Error())
	}
	fixed, _ := config.Fixed(n.config, c)
	same := n.cluster == nil && len(c.VIP) == 0 && len(c.Cluster.Join) == 0 || n.cluster != nil && n.cluster.same(fixed) && n.config.Cluster.Name == c.Cluster.Name
	if !same {
		return control.Refuse(fmt.Sprintf("%s changes [cluster] or [vip], which an upgrade takes over as they are: `hactl reload` first", n.file))
	}
	return nil
}

// sockets returns copies of the sockets between the nodes.
func (k *cluster) sockets() (files []baton.File, err error) {
	if k.mesh == nil {
		return nil, nil
	}
	for _, of := range []map[string]syscall.Conn{k.mesh.Sockets(), k.gossip.Sockets()} {
		for name, c := range of {
			f, err := baton.Copy(memberPrefix+name, c)
			if err != nil {
				baton.CloseFiles(files)
				return nil, err
			}
			files = append(files, f)
		}
	}
	return files, nil
}

// halt stops deciding and returns what another process must know to go on. settle(true)
// leaves all to it; settle(false) goes on here.
func (k *cluster) halt() (state json.RawMessage, settle func(gone bool), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), k.patience())
	defer cancel()
	s := clusterState{Claims: map[string]vip.Claim{}}
	known, node, err := k.node.Halt(ctx)
	if errors.Is(err, ha.ErrRefused) {
		return nil, nil, control.Refuse(err.Error() + ": ask again when it is done")
	} else if err != nil {
		return nil, nil, err
	}
	s.Node = known
	var keepers []func(bool)
	all := func(gone bool) {
		if gone && k.gossip != nil {
			k.gossip.HandOn()
		}
		for _, d := range k.devices {
			if f := d.Fence(); gone && f != nil {
				if err := f.Leave(); err != nil {
					k.log.Warn("leave the fence to the next process", "error", err)
				}
			}
		}
		if gone && k.sysctls != nil {
			k.sysctls.Leave()
		}
		for _, settle := range keepers { // first: the loop may have something for them at once
			settle(gone)
		}
		node(gone)
	}
	for name, keeper := range k.now().keepers {
		claim, one, err := keeper.Halt()
		if err != nil {
			all(false)
			return nil, nil, err
		}
		s.Claims[name] = claim
		keepers = append(keepers, one)
	}
	if k.sysctls != nil {
		s.Sysctls = k.sysctls.Changed()
	}
	if k.mesh != nil {
		s.Mesh, err = k.mesh.Memory()
	}
	if err == nil {
		state, err = json.Marshal(s)
	}
	if err != nil {
		all(false)
		return nil, nil, err
	}
	return state, all, nil
}

// adopt puts in place what another process leaves. Nothing runs yet.
func (k *cluster) adopt(state json.RawMessage) error {
	if len(state) == 0 {
		return errors.New("the process before this one had no cluster part")
	}
	var s clusterState
	if err := json.Unmarshal(state, &s); err != nil {
		return fmt.Errorf("the cluster part of the process before: %w", err)
	}
	if err := k.node.Recall(s.Node); err != nil {
		return err
	}
	if k.mesh != nil {
		// The other process may have had a new key since this one read the ring.
		if err := k.keys.Reread(); err != nil {
			return err
		}
		if len(s.Mesh) > 0 { // else the part before had no other voters
			if err := k.mesh.Recall(s.Mesh); err != nil {
				return err
			}
		}
	}
	if k.sysctls != nil {
		k.sysctls.Inherit(s.Sysctls)
	}
	for name, keeper := range k.now().keepers {
		if err := keeper.Adopt(s.Claims[name]); err != nil {
			return err
		}
	}
	for _, v := range vipsOf(k.now().config) {
		if s.Claims[v.Name].State == vip.Idle {
			if err := k.sweep(k.devices[v.Interface], []netip.Prefix{v.Address}); err != nil {
				return err
			}
		}
	}
	return nil
}
