package vip

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// changesBuffer is how many bytes of unread changes the kernel keeps for a follower. Each
// renewal of each address is a change, some 100 bytes long.
const changesBuffer = 1 << 20

// Follow calls changed for each change of the interface until ctx ends. It begins with
// LinkUp if the interface is up: what happened before it listened is not known. It ends
// with an error if changes were lost.
func (d *Device) Follow(ctx context.Context, changed func(Change)) error {
	var (
		addrs = make(chan netlink.AddrUpdate, 64)
		links = make(chan netlink.LinkUpdate, 64)
		done  = make(chan struct{})
		lost  = make(chan error, 2)
	)
	// The library's two goroutines end when done is closed and their channels are read
	// to the end.
	defer func() {
		close(done)
		go func() {
			for range addrs {
			}
			for range links {
			}
		}()
	}()
	fault := func(err error) {
		select {
		case lost <- err:
		default:
		}
	}
	err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{
		ErrorCallback: fault, ReceiveBufferSize: changesBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		close(addrs)
		close(links)
		return fmt.Errorf("follow addresses: %w", err)
	}
	err = netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{
		ErrorCallback: fault, ReceiveBufferSize: changesBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		close(links)
		return fmt.Errorf("follow interfaces: %w", err)
	}

	was := place{}
	see := func() {
		now, err := d.locate()
		switch {
		case err != nil && !errors.Is(err, ErrNoInterface):
			d.log.Warn("interface cannot be used", "err", err)
		case now == was:
		case now.up:
			changed(Change{Kind: LinkUp})
		case was.up:
			changed(Change{Kind: LinkDown})
		}
		was = now
	}
	see()
	for {
		select {
		case u, ok := <-addrs:
			if !ok {
				return fmt.Errorf("follow addresses of %s: changes were lost: %w", d.name, <-lost)
			}
			if u.NewAddr || u.LinkIndex != was.index {
				continue
			}
			if p, ok := prefix(&u.LinkAddress); ok {
				changed(Change{Kind: Removed, Addr: p.Addr()})
			}
		case u, ok := <-links:
			if !ok {
				return fmt.Errorf("follow %s: changes were lost: %w", d.name, <-lost)
			}
			if a := u.Attrs(); a.Name == d.name || a.Index == was.index || u.Header.Type == unix.RTM_DELLINK {
				see()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
