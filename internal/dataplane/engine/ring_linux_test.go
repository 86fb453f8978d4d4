package engine

import (
	"bytes"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func openRing(t *testing.T) *ring {
	r, err := newRing()
	if err != nil {
		t.Skip("no io_uring here: ", err)
	}
	t.Cleanup(r.close)
	return r
}

func socketPair(t *testing.T) (a, b int32) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	return int32(pair[0]), int32(pair[1])
}

// TestRingInOrder makes more calls than the ring has room for: each byte that was written
// is read by the call that is its turn.
func TestRingInOrder(t *testing.T) {
	r := openRing(t)
	a, b := socketPair(t)
	const pairs = ringSize + 10
	var calls []call
	for i := range pairs {
		calls = append(calls, call{op: ringSend, fd: a, b: []byte{byte(i)}}, call{op: ringRecv, fd: b, b: make([]byte, 4)})
	}
	for round := range 3 { // the queues come round
		r.do(calls)
		for i := range pairs {
			sent, got := calls[2*i], calls[2*i+1]
			if sent.n != 1 || sent.e != 0 || got.n != 1 || got.e != 0 || got.b[0] != byte(i) {
				t.Fatalf("round %d, pair %d: sent %d %v, got %d %v %d", round, i, sent.n, sent.e, got.n, got.e, got.b[0])
			}
		}
	}
}

// TestRingNeverWaits has every call return what the plain one does.
func TestRingNeverWaits(t *testing.T) {
	r := openRing(t)
	silent, _ := socketPair(t)
	full, unread := socketPair(t)
	large := bytes.Repeat([]byte{'x'}, 8<<20)
	ended, gone := socketPair(t)
	unix.Shutdown(int(gone), unix.SHUT_WR)
	broken, closed := socketPair(t)
	unix.Shutdown(int(closed), unix.SHUT_RD)
	calls := []call{
		{op: ringRecv, fd: silent, b: make([]byte, 1)},
		{op: ringSend, fd: full, b: large},
		{op: ringSend, fd: full, b: large},
		{op: ringRecv, fd: ended, b: make([]byte, 1)},
		{op: ringSend, fd: broken, b: []byte{'x'}},
		{op: ringRecv, fd: -1, b: make([]byte, 1)},
		{op: ringRecv, fd: unread, b: make([]byte, 1)},
	}
	r.do(calls)
	if c := calls[1]; c.e != 0 || c.n <= 0 || c.n >= len(large) {
		t.Errorf("a write of more than fits: %d, %v", c.n, c.e)
	}
	for i, want := range map[int]syscall.Errno{0: syscall.EAGAIN, 2: syscall.EAGAIN, 3: 0, 4: syscall.EPIPE, 5: syscall.EBADF, 6: 0} {
		if calls[i].e != want {
			t.Errorf("call %d: %v, want %v", i, calls[i].e, want)
		}
	}
	if calls[3].n != 0 || calls[6].n != 1 {
		t.Errorf("read %d bytes of who has ended and %d of who has spoken", calls[3].n, calls[6].n)
	}
}

// Of a client that an event tells of twice, what is there is read once.
func TestABatchReadsOfAWireOnce(t *testing.T) {
	r := newQueueRig()
	r.engine.side = &Goroutine{}
	r.engine.side.conf.Batch = 1
	r.batch.ring = openRing(t)
	fd, peer := socketPair(t)
	r.enlist(&r.idle.loopWire, fd)
	said := bytes.Repeat([]byte("x"), 2*fetchBytes)
	said[0] = 'a'
	if n, err := unix.Write(int(peer), said); n != len(said) {
		t.Fatal(n, err)
	}
	for i := range 2 {
		r.events[i] = unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd, Pad: int32(r.idle.gen)}
	}
	r.fetch(2)
	if n, _, e := r.read(&r.idle.loopWire, make([]byte, bufferBytes)); n != fetchBytes || e != 0 {
		t.Fatal(n, e)
	}
	rest := make([]byte, 4*fetchBytes)
	if n, _ := unix.Read(int(fd), rest); n != fetchBytes {
		t.Errorf("%d bytes are left to be read, want %d", n, fetchBytes)
	}
}
