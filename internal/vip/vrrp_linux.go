package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Speakers listens on an interface until ctx ends, and returns who else speaks VRRP or
// CARP there, each once. Those of this host are heard too.
func Speakers(ctx context.Context, name string) ([]Speaker, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("listen for VRRP on %s: %w", name, err)
	}
	var mu sync.Mutex
	found := map[string]Speaker{}
	heard := func(_ int, frame []byte) {
		if s, ok := parseVRRP(frame); ok {
			mu.Lock()
			defer mu.Unlock()
			if len(found) < maxSpeakers {
				found[s.String()] = s
			}
		}
	}
	var both sync.WaitGroup
	errs := make([]error, 2)
	for n, w := range []struct {
		proto uint16
		at    uint32 // of the protocol's number
	}{{etherIPv4, ethernetHead + 9}, {etherIPv6, ethernetHead + 6}} {
		both.Go(func() { errs[n] = listenFor(ctx, i.Index, w.proto, w.at, heard) })
	}
	both.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("listen for VRRP on %s: %w", name, err)
	}
	var out []Speaker
	for _, s := range found {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Speaker) int { return a.From.Compare(b.From) })
	return out, nil
}

// maxSpeakers bounds what strangers can make this host remember.
const maxSpeakers = 64

// listenFor hears frames of VRRP alone, to whatever group they are sent.
func listenFor(ctx context.Context, index int, proto uint16, at uint32, heard func(int, []byte)) error {
	w, err := openWire(proto, []bpf.Instruction{
		bpf.LoadAbsolute{Off: at, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: vrrp, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	defer w.Close()
	groups := &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_ALLMULTI}
	if err := w.conn.SetsockoptPacketMreq(unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, groups); err != nil {
		return fmt.Errorf("hear all groups: %w", err)
	}
	if err := w.bind(index); err != nil {
		return err
	}
	if err := w.receive(ctx, heard); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
