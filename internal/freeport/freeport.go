// Package freeport gives tests ports that nobody has and nobody is given meanwhile: not the
// kernel to another socket, as these are below those it gives, and not this package to
// another test, in this process or in another.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

const (
	// first to last are below what Linux gives to sockets that ask for any port (32768 on), and
	// above what services have.
	first, last = 12000, 32000

	// A process takes block ports at once.
	block = 50
)

var taken struct {
	sync.Mutex
	next, end int
	// blocks holds, as long as this process lives, a socket whose name says whose each block is.
	blocks []net.Listener
}

// Take returns the first of n ports in a row, at most 50, that are free on every address of
// this host, for TCP and UDP.
func Take(t testing.TB, n int) int {
	t.Helper()
	taken.Lock()
	defer taken.Unlock()
	for range 1000 {
		if taken.next+n > taken.end {
			claim()
			continue
		}
		p := taken.next
		taken.next += n
		if free(p, n) {
			return p
		}
	}
	t.Fatalf("no %d ports in a row are free", n)
	return 0
}

// Address returns 127.0.0.1 with a port that is free.
func Address(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Take(t, 1))
}

// claim tries to take a block that no other process has.
func claim() {
	b := first + block*rand.IntN((last-first)/block)
	l, err := net.Listen("unix", fmt.Sprintf("@proxyd-freeport-%d", b))
	if err != nil {
		return
	}
	taken.blocks = append(taken.blocks, l)
	taken.next, taken.end = b, b+block
}

func free(p, n int) bool {
	for ; n > 0; p, n = p+1, n-1 {
		at := fmt.Sprintf(":%d", p)
		l, err := net.Listen("tcp", at)
		if err != nil {
			return false
		}
		l.Close()
		u, err := net.ListenPacket("udp", at)
		if err != nil {
			return false
		}
		u.Close()
	}
	return true
}
