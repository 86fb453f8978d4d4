package beat

import (
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNew runs f on a thread with a network of its own, which ends with it.
func inNew(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		err := errors.New("the test failed there")
		defer func() { done <- err }()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f()
		}
	}()
	switch err := <-done; {
	case errors.Is(err, unix.EPERM):
		t.Skip("no network of its own without root")
	case err != nil:
		t.Fatal(err)
	}
}

func TestAPathGoesAlongWhenItsInterfaceIsMadeAnew(t *testing.T) {
	inNew(t, func() {
		plug := func() int {
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "beat0"}, PeerName: "beat1"}); err != nil {
				t.Fatal(err)
			}
			return indexOf("beat0")
		}
		first := plug()
		s, err := openSocket(netip.MustParseAddrPort("0.0.0.0:0"), "beat0")
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		m := &Mesh{Config: Config{Log: slog.New(slog.DiscardHandler), Paths: []Path{{Name: "eth0"}, {Name: "beat0", Device: "beat0"}}},
			sockets: []socket{{}, s}, indices: []int{0, first}}
		bound := func() int {
			index, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
			if err != nil {
				t.Fatal(err)
			}
			return index
		}
		m.rebind()
		if bound() != first {
			t.Fatalf("bound to %d, want %d", bound(), first)
		}
		l, err := netlink.LinkByName("beat0")
		if err == nil {
			err = netlink.LinkDel(l)
		}
		if err != nil {
			t.Fatal(err)
		}
		m.rebind() // it waits
		second := plug()
		m.rebind()
		if second == first || bound() != second {
			t.Errorf("bound to %d, want %d, the one that was made anew in the place of %d", bound(), second, first)
		}
	})
}
