package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// raiseFiles lets this process, and those it starts, open as many files as the kernel
// permits, and returns how many.
func raiseFiles() (uint64, error) {
	// By package syscall: it knows that the limit is then no longer reset for children.
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	const want = 65536
	if higher := (syscall.Rlimit{Cur: want, Max: want}); l.Max < want && syscall.Setrlimit(syscall.RLIMIT_NOFILE, &higher) == nil {
		return want, nil // root may
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("raise the limit of open files: %w", err)
	}
	return l.Cur, nil
}

// openIdle opens connections and has one request answered on each. The caller closes them.
func openIdle(ctx context.Context, space *Space, to netip.AddrPort, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, 0, n)
	l := newLoader(LoadSpec{Target: to.String(), Host: benchHost, Path: "/small", Deadline: 10 * time.Second}, nil)
	err := space.Do(func() error {
		for len(conns) < n {
			c, err := l.dial(ctx)
			if err != nil {
				return err
			}
			conns = append(conns, c)
			if o := l.exchange(c, bufio.NewReaderSize(c, 512), "\r\n"); o != OK {
				return fmt.Errorf("request on connection %d: %v", len(conns), o)
			}
			if err := c.SetDeadline(time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, c := range conns {
			c.Close()
		}
		return nil, err
	}
	return conns, nil
}
