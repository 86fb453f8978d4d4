package engine

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Two processes of a node may have a socket each at one address while the one takes the other's
// place. Which of them a datagram is for the kernel is told by a program of the sockets'
// group, that of the oldest socket being the first.

// MayShare is for a socket before it is bound, as the Control of a net.ListenConfig does: it shares
// its address with other sockets of this user, of which the oldest gets all that comes.
func MayShare(fd uintptr) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// TakeOver has what begins a connection come to this endpoint from now on, and what is said on
// one that has an id of ours. The rest goes on to the older socket of the address.
func (e *Endpoint) TakeOver() error {
	const other, ours = 0, 1
	node := binary.BigEndian.Uint32(e.ids.mark[tagAt-4:])
	tag := uint32(binary.BigEndian.Uint16(e.ids.tag[:]))
	return e.attach([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x80, SkipTrue: 3},
		// A short header (RFC 9000, 17.3): the id begins behind the first byte.
		bpf.LoadAbsolute{Off: 1 + tagAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: tag, SkipTrue: 8},
		bpf.RetConstant{Val: other},
		// A long one (17.2): the id has its length before it, and may be one that the client made up.
		bpf.LoadAbsolute{Off: 5, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: idBytes, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 6 + tagAt - 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: node, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 6 + tagAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: tag, SkipTrue: 1},
		bpf.RetConstant{Val: other},
		bpf.RetConstant{Val: ours},
	})
}

// Share is for before another process has a socket at the address: it gets nothing until it
// takes over.
func (e *Endpoint) Share() error { return e.attach([]bpf.Instruction{bpf.RetConstant{Val: 0}}) }

func (e *Endpoint) attach(program []bpf.Instruction) error {
	c, ok := e.socket.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T has no descriptor", e.socket)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var fault error
	err = raw.Control(func(fd uintptr) { fault = attach(fd, program) })
	if err == nil {
		err = fault
	}
	return err
}

func attach(fd uintptr, program []bpf.Instruction) error {
	made, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(made))
	for i, m := range made {
		filter[i] = unix.SockFilter{Code: m.Op, Jt: m.Jt, Jf: m.Jf, K: m.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog))
}
