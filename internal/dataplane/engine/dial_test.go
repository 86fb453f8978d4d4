package engine

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deafAddress returns an address at which a connection is neither made nor refused: the
// queue of its listener is full.
func deafAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	a := sa.(*unix.SockaddrInet4)
	to := netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	for range 4 {
		fd, errno := connectFD(to)
		if fd < 0 {
			t.Fatal(errno)
		}
		t.Cleanup(func() { closeFD(fd) })
	}
	return to
}

// The time of an exchange is up, whatever the server is owed for a connection.
func TestTotalTimeEndsADial(t *testing.T) {
	for name, newEngine := range map[string]func(Config) Engine{
		"loop":      func(c Config) Engine { return NewLoop(c) },
		"goroutine": func(c Config) Engine { return New(c) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, newEngine, func(s *stage, _ *Config) { s.route.Timeout.Total = 20 * time.Millisecond })
			s.upstream.SetAddr(deafAddress(t))
			s.play(`
				c> "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
				h "retry total_time replayable=true sent=false"`)
		})
	}
}
