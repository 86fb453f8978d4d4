package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/mdlayher/socket"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// changesBuffer is how many bytes of unread changes the kernel keeps for a follower.
const changesBuffer = 1 << 20

// Follow calls changed for each change of the interface until ctx ends. It begins with
// LinkUp if the interface is up, and tells that again when the kernel says that changes
// were lost: what happened meanwhile is not known.
func (d *Device) Follow(ctx context.Context, changed func(Change)) error {
	c, err := subscribe()
	if err != nil {
		return fmt.Errorf("follow %s: %w", d.name, err)
	}
	defer c.Close()

	var was place
	look := func() {
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
	look()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.Recvfrom(ctx, buf, 0)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			d.log.Warn("changes of addresses were lost")
			was = place{}
			look()
			continue
		case err != nil:
			return fmt.Errorf("follow %s: %w", d.name, err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != nl.PidKernel {
			continue // another process may send to us
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("follow %s: %w", d.name, err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.RTM_NEWLINK, unix.RTM_DELLINK:
				look()
			case unix.RTM_DELADDR:
				if a, ok := lostAddr(m.Data, was.index); ok {
					changed(Change{Kind: Removed, Addr: a})
				}
			}
		}
	}
}

// subscribe opens a socket that hears of interfaces and of removed addresses. Added ones
// are filtered out in the kernel: each renewal of each address is one of them, and would
// wake us for nothing.
func subscribe() (*socket.Conn, error) {
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // nlmsghdr.nlmsg_type, in the host's byte order
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(network(unix.RTM_NEWADDR)), SkipTrue: 1},
		bpf.RetConstant{Val: changesBuffer},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, err
	}
	c, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, "netlink", nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	err = errors.Join(
		c.SetBPF(filter),
		c.SetReadBuffer(changesBuffer),
		c.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to changes of addresses: %w", err), c.Close())
	}
	return c, nil
}

// lostAddr returns the address that a message of the kernel says is gone from the
// interface of the index.
func lostAddr(b []byte, index int) (netip.Addr, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, false
	}
	head := nl.DeserializeIfAddrmsg(b)
	if int(head.Index) != index {
		return netip.Addr{}, false
	}
	attributes, err := nl.ParseRouteAttr(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range attributes {
		// IPv4 has the address in IFA_LOCAL, and often in IFA_ADDRESS too; IPv6 in the
		// latter alone.
		want := uint16(unix.IFA_ADDRESS)
		if head.Family == unix.AF_INET {
			want = unix.IFA_LOCAL
		}
		if a.Attr.Type == want {
			return netip.AddrFromSlice(a.Value)
		}
	}
	return netip.Addr{}, false
}
