package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/socket"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A wire is a packet socket for one kind of frame, sent and received. It is kept open
// for as long as its Device: opening and closing one costs 5-13 ms. When the interface
// is replaced by another of the same name the wire is bound to that one.
type wire struct {
	conn  *socket.Conn
	proto uint16 // EtherType
}

// openWire opens a wire that is not bound to an interface yet and hears nothing.
func openWire(proto uint16, filter []bpf.Instruction) (*wire, error) {
	// Protocol 0: no frame comes before the filter is set and the wire bound.
	c, err := socket.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0, "packet", nil)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if filter != nil {
		raw, err := bpf.Assemble(filter)
		if err == nil {
			err = c.SetBPF(raw)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("set filter of packet socket: %w", err), c.Close())
		}
	}
	return &wire{c, proto}, nil
}

// bind makes the wire hear and speak on the interface, and on that one only.
func (w *wire) bind(index int) error {
	if err := w.conn.Bind(&unix.SockaddrLinklayer{Protocol: network(w.proto), Ifindex: index}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// send sends a whole frame.
func (w *wire) send(index int, frame []byte) error {
	to := &unix.SockaddrLinklayer{Protocol: network(w.proto), Ifindex: index}
	err := w.conn.Sendto(context.Background(), frame, 0, to)
	if errors.Is(err, unix.ENETDOWN) {
		// A socket tells once that its interface went down, to whoever asks first, and
		// also if it has come up since. The second answer is about now.
		err = w.conn.Sendto(context.Background(), frame, 0, to)
	}
	return err
}

// receive calls got with each frame, and the interface that it came in by, until ctx
// ends. An interface that goes down or away is no error: it may come back.
func (w *wire) receive(ctx context.Context, got func(index int, frame []byte)) error {
	var buf [256]byte // the fields that matter are in the first 100 bytes
	for {
		n, from, err := w.conn.Recvfrom(ctx, buf[:], 0)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENETDOWN):
			continue // told once for each time it goes down
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		}
		if sa, ok := from.(*unix.SockaddrLinklayer); ok {
			got(sa.Ifindex, buf[:n])
		}
	}
}

func (w *wire) Close() error { return w.conn.Close() }

// network returns v in network byte order.
func network(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// onlyND lets neighbour discovery through, and nothing else of IPv6: the rest of a
// proxy's traffic must not be copied to a watcher.
func onlyND() []bpf.Instruction {
	const whole = 1 << 16
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: ethernetHead + 6, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6, SkipTrue: 4},
		bpf.LoadAbsolute{Off: ethernetHead + ipv6Head, Size: 1}, // ICMPv6 type
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: routerSolicit, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: redirect, SkipTrue: 1},
		bpf.RetConstant{Val: whole},
		bpf.RetConstant{Val: 0},
	}
}
