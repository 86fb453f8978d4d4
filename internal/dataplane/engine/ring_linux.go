package engine

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A call is a read or a write on a non-blocking socket, and what came of it.
type call struct {
	op   uint8 // ringSend or ringRecv
	fd   int32
	b    []byte // not empty
	n    int
	e    syscall.Errno
	done bool
}

// make makes the call by itself.
func (c *call) make() {
	if c.op == ringSend {
		c.n, c.e = writeFD(uintptr(c.fd), c.b)
	} else {
		c.n, c.e = readFD(uintptr(c.fd), c.b)
	}
	c.done = true
}

// A ring makes many calls at the price of one: the way into the kernel and out of it costs
// as much as a short call itself. It is an io_uring(7) that is used as nothing but a list.
// All calls are made with MSG_DONTWAIT, so each has its result before do returns, and
// nothing is left with the kernel. One goroutine has a ring.
type ring struct {
	fd     int
	rings  []byte // the memory of both queues
	list   []byte // the memory of sqes
	sqes   []ringEntry
	cqes   []ringResult
	sqTail *uint32
	cqHead *uint32
	cqTail *uint32
	tail   uint32 // of the submission queue
}

// ringSize is how many calls a ring makes at once.
const ringSize = 256

// From linux/io_uring.h, which Go's libraries do not have.
const (
	ringSend = 26 // IORING_OP_SEND
	ringRecv = 27 // IORING_OP_RECV

	ringOneMapping = 1 << 0     // IORING_FEAT_SINGLE_MMAP
	ringGetEvents  = 1 << 0     // IORING_ENTER_GETEVENTS
	ringListAt     = 0x10000000 // IORING_OFF_SQES
)

type ringParams struct {
	sqEntries, cqEntries uint32
	_                    [3]uint32
	features             uint32
	_                    [4]uint32
	sq, cq               ringOffsets
}

// ringOffsets are where the parts of a queue are in the mapping.
type ringOffsets struct {
	head, tail uint32
	_          [3]uint32
	results    uint32 // of the completion queue
	order      uint32 // of the submission queue: the entries in the order in which they are taken
	_          [3]uint32
}

// A ringEntry is a struct io_uring_sqe.
type ringEntry struct {
	op    uint8
	_     [3]uint8
	fd    int32
	_     uint64
	addr  uint64
	size  uint32
	flags uint32
	id    uint64
	_     [3]uint64
}

// A ringResult is a struct io_uring_cqe.
type ringResult struct {
	id    uint64
	n     int32
	flags uint32
}

var errRing = errors.New("the kernel's io_uring is too old")

// newRing returns a ring. The error says why this host has none for us: many forbid it.
func newRing() (*ring, error) {
	var p ringParams
	fd, _, e := syscall.RawSyscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, os.NewSyscallError("io_uring_setup", e)
	}
	r := &ring{fd: int(fd)}
	err := error(errRing)
	if p.features&ringOneMapping != 0 {
		err = r.lay(&p)
	}
	if err == nil {
		err = r.try()
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// lay maps the queues.
func (r *ring) lay(p *ringParams) (err error) {
	results := p.cq.results
	size := max(p.sq.order+4*p.sqEntries, results+p.cqEntries*uint32(unsafe.Sizeof(ringResult{})))
	if r.rings, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if r.list, err = unix.Mmap(r.fd, ringListAt, int(p.sqEntries)*int(unsafe.Sizeof(ringEntry{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[offset])) }
	r.sqTail, r.cqHead, r.cqTail = at(p.sq.tail), at(p.cq.head), at(p.cq.tail)
	r.sqes = unsafe.Slice((*ringEntry)(unsafe.Pointer(&r.list[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*ringResult)(unsafe.Pointer(&r.rings[results])), p.cqEntries)
	order := unsafe.Slice(at(p.sq.order), p.sqEntries)
	for i := range order {
		order[i] = uint32(i)
	}
	return nil
}

// try makes a read and a write, which this kernel may not know.
func (r *ring) try() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	calls := []call{
		{op: ringSend, fd: int32(pair[0]), b: []byte{'x'}},
		{op: ringRecv, fd: int32(pair[1]), b: make([]byte, 1)},
	}
	if r.some(calls); !calls[0].done || calls[0].n != 1 || !calls[1].done || calls[1].n != 1 {
		return errRing
	}
	return nil
}

func (r *ring) close() {
	if r == nil {
		return
	}
	if r.list != nil {
		_ = unix.Munmap(r.list)
	}
	if r.rings != nil {
		_ = unix.Munmap(r.rings)
	}
	unix.Close(r.fd)
}

// do makes the calls, in their order.
func (r *ring) do(calls []call) {
	for len(calls) > 0 {
		n := min(len(calls), len(r.sqes))
		r.some(calls[:n])
		for i := range calls[:n] {
			if c := &calls[i]; !c.done || c.e == syscall.EINTR {
				c.make()
			}
		}
		calls = calls[n:]
	}
}

// some makes as many calls as there is room for. Those that the kernel did not take are
// not done.
func (r *ring) some(calls []call) {
	mask := uint32(len(r.sqes) - 1)
	for i := range calls {
		c := &calls[i]
		c.n, c.e, c.done = 0, 0, false
		r.sqes[(r.tail+uint32(i))&mask] = ringEntry{
			op: c.op, fd: c.fd, addr: uint64(uintptr(unsafe.Pointer(&c.b[0]))), size: uint32(len(c.b)),
			flags: unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT, id: uint64(i),
		}
	}
	r.tail += uint32(len(calls))
	atomic.StoreUint32(r.sqTail, r.tail)
	left, open := len(calls), 0
	for left > 0 || open > 0 {
		flags := uintptr(0)
		if left == 0 {
			flags = ringGetEvents // a call that waits, which none should
		}
		n, _, e := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(left), uintptr(open)*flags, flags, 0, 0)
		if e == syscall.EINTR {
			continue
		}
		if left > 0 && (e != 0 || n == 0) {
			r.tail -= uint32(left) // they were not taken
			atomic.StoreUint32(r.sqTail, r.tail)
			left, n = 0, 0
		}
		left -= int(n)
		open += int(n)
		open -= r.reap(calls)
	}
}

// reap takes the results, and returns how many there were.
func (r *ring) reap(calls []call) int {
	mask := uint32(len(r.cqes) - 1)
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for at := head; at != tail; at++ {
		q := &r.cqes[at&mask]
		c := &calls[q.id]
		if c.done = true; q.n < 0 {
			c.e = syscall.Errno(-q.n)
		} else {
			c.n = int(q.n)
		}
	}
	atomic.StoreUint32(r.cqHead, tail)
	return int(tail - head)
}
