package engine

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Several processes of a node may have a socket each at one address, while older ones let
// their connections end. Which of them a datagram is for the kernel is told by a program of the
// sockets' group, in which they have numbers in the order in which they were bound.

// MayShare is for a socket before it is bound, as the Control of a net.ListenConfig does: it shares
// its address with other sockets of this user. Without a program any of them may get what comes.
func MayShare(fd uintptr) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// mostSteered bounds how many others a program knows: its jumps are short.
const mostSteered = 60

// A Steered is another socket at an endpoint's address: what is said on connections whose ids
// have the tag goes to it.
type Steered struct {
	Tag    [2]byte
	Number int // in the group
}

// Steer has all that comes to the address go to this endpoint, whose socket has a number in
// the group, but for what is said on the connections of others. It is in force at once, and
// instead of what this or another process had said before.
func (e *Endpoint) Steer(number int, others []Steered) error {
	if len(others) > mostSteered {
		return fmt.Errorf("%d sockets at one address are too many", len(others))
	}
	mark := e.ids.mark[:]
	tests := []bpf.Instruction{
		// X is where the id is, less 1.
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x80, SkipTrue: 2},
		// A short header (RFC 9000, 17.3): the id begins behind the first byte.
		bpf.LoadConstant{Dst: bpf.RegX, Val: 0},
		bpf.Jump{Skip: 3},
		// A long one (17.2): the id has its length before it, and may be one that the client made up.
		bpf.LoadAbsolute{Off: 5, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: idBytes, SkipFalse: uint8(6 + 2*len(others))},
		bpf.LoadConstant{Dst: bpf.RegX, Val: 5},
		bpf.LoadIndirect{Off: 1, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(mark), SkipFalse: uint8(3 + 2*len(others))},
		bpf.LoadIndirect{Off: 5, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(mark[4:])), SkipFalse: uint8(1 + 2*len(others))},
		bpf.LoadIndirect{Off: 1 + tagAt, Size: 2},
	}
	for _, o := range others {
		tests = append(tests,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(o.Tag[:])), SkipFalse: 1},
			bpf.RetConstant{Val: uint32(o.Number)})
	}
	return e.control(func(fd uintptr) error { return attach(fd, append(tests, bpf.RetConstant{Val: uint32(number)})) })
}

// Tag is what the ids of this endpoint's connections have behind the node's mark.
func (e *Endpoint) Tag() [2]byte { return e.ids.tag }

// File returns a copy of the socket. The caller closes it.
func (e *Endpoint) File() (f *os.File, err error) {
	err = e.control(func(fd uintptr) error {
		copied, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			f = os.NewFile(uintptr(copied), "udp")
		}
		return os.NewSyscallError("fcntl", err)
	})
	return f, err
}

func (e *Endpoint) control(do func(fd uintptr) error) error {
	c, ok := e.socket.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T has no descriptor", e.socket)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var fault error
	if err = raw.Control(func(fd uintptr) { fault = do(fd) }); err == nil {
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
