package vip

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
)

var (
	vip4     = netip.MustParseAddr("10.9.0.100")
	vip6     = netip.MustParseAddr("fd09::100")
	families = []struct {
		name string
		vip  netip.Addr
	}{{"IPv4", vip4}, {"IPv6", vip6}}
)

// patience is for how long an event is waited for that a busy machine may delay. How fast
// things are is measured and logged, and judged by the drills.
const patience = 30 * time.Second

// inside reports whether the test runs in a network namespace of its own. If not, it
// runs the test again in a child process that does, and the caller returns.
func inside(t *testing.T) bool {
	t.Helper()
	const mark = "VIP_TEST_INSIDE"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	c := again(t, t.Name())
	c.Env = append(c.Env, mark+"="+t.Name())
	c.SysProcAttr.Unshareflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS // what is mounted is ours alone
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := c.CombinedOutput()
	var failed *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &failed) && os.Geteuid() != 0:
		t.Skipf("needs root, or user namespaces without it: %v", err)
	case err != nil:
		t.Errorf("in a network namespace of its own: %v\n%s", err, out)
	case testing.Verbose():
		t.Logf("%s", out)
	}
	return false
}

// again is a command that runs one test of this binary in a process that dies with us.
func again(t *testing.T, test string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+test+"$", "-test.v")
	c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// A stage is this process's namespace with an interface eth0, the node's, and a far
// namespace at the other end of its cable, with a host in it.
type stage struct {
	t    *testing.T
	far  netns.NsHandle
	arp  *wire // of the far host
	nd   *wire
	name string
	fmac [6]byte // the far host's
	fidx int
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, name: "eth0"}
	s.inNew(func() {
		s.far = must(netns.Get())(t)
		up(t, "lo")
	})
	t.Cleanup(func() { _ = s.far.Close() })
	up(t, "lo")
	s.plug()
	return s
}

// plug lays the cable, eth0 here and far0 there.
func (s *stage) plug() {
	s.t.Helper()
	ok(s.t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: s.name}, PeerName: "far0", PeerNamespace: netlink.NsFd(s.far),
	}))
	dress(s.t, s.name, "10.9.0.1/24", "fd09::1/64")
	s.inFar(func() {
		l := dress(s.t, "far0", "10.9.0.9/24", "fd09::9/64")
		s.fidx, s.fmac = l.Attrs().Index, [6]byte(l.Attrs().HardwareAddr)
		s.arp = must(openWire(etherARP, nil))(s.t)
		s.nd = must(openWire(etherIPv6, onlyND()))(s.t)
	})
	for _, w := range []*wire{s.arp, s.nd} {
		ok(s.t, w.bind(s.fidx))
		s.t.Cleanup(func() { _ = w.Close() })
	}
}

// inNew runs f in a new namespace on a thread that ends with it; inFar in the far one.
func (s *stage) inNew(f func()) {
	s.elsewhere(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, f)
}
func (s *stage) inFar(f func()) { s.elsewhere(func() error { return netns.Set(s.far) }, f) }

func (s *stage) elsewhere(enter func() error, f func()) {
	s.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		err := errors.New("the test failed elsewhere")
		defer func() { done <- err }()
		if err = enter(); err == nil {
			f()
		}
	}()
	ok(s.t, <-done)
}

// ask returns whose hardware address the far host hears in answer for a, if any does
// within d.
func (s *stage) ask(a netip.Addr, d time.Duration) (mac [6]byte, answered bool) {
	s.t.Helper()
	w, frame := s.arp, []byte(nil)
	if a.Is4() {
		frame = must(arpProbe(s.fmac, a))(s.t)
	} else {
		w, frame = s.nd, must(solicitationFrame(s.fmac, netip.MustParseAddr("fd09::9"), a))(s.t)
	}
	s.discard(w)
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	ok(s.t, w.send(s.fidx, frame))
	_ = w.receive(ctx, func(_ int, f []byte) {
		// An announcement is no answer: that one comes to us alone.
		if h, err := parseFrame(f); err == nil && h.Claim == a && [6]byte(f[:6]) == s.fmac {
			mac, answered = h.From, true
			cancel()
		}
	})
	return mac, answered
}

// discard takes the frames that came earlier from a wire.
func (s *stage) discard(w *wire) {
	raw := must(w.conn.SyscallConn())(s.t)
	ok(s.t, raw.Control(func(fd uintptr) {
		for err := error(nil); err == nil; {
			_, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_DONTWAIT)
		}
	}))
}

// until asks again and again until the answer is as wanted, and returns how long it
// took.
func (s *stage) until(a netip.Addr, want bool) time.Duration {
	s.t.Helper()
	start := time.Now()
	for time.Since(start) < patience {
		// Two asks that nobody answers: one might be lost in a busy machine.
		_, got := s.ask(a, 25*time.Millisecond)
		if !got && !want {
			_, got = s.ask(a, 25*time.Millisecond)
		}
		if got == want {
			return time.Since(start)
		}
	}
	s.t.Fatalf("%s answered for: not %v after %v", a, want, patience)
	return 0
}

// synRetries returns how many SYNs of the far host were lost and sent again.
func (s *stage) synRetries() (n int) {
	s.inFar(func() {
		text := string(must(os.ReadFile("/proc/thread-self/net/netstat"))(s.t))
		lines := strings.Split(text, "\n")
		names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
		n = must(strconv.Atoi(values[slices.Index(names, "TCPSynRetrans")]))(s.t)
	})
	return n
}

// farEntry returns the hardware address in the far kernel's table.
func (s *stage) farEntry(a netip.Addr) (mac string) {
	s.inFar(func() {
		for _, n := range must(netlink.NeighList(s.fidx, netlink.FAMILY_ALL))(s.t) {
			if n.IP.Equal(a.AsSlice()) {
				mac = n.HardwareAddr.String()
			}
		}
	})
	return mac
}

// open opens eth0 and a port on it.
func (s *stage) open(sysctls *Sysctls) (*Device, *Port) {
	s.t.Helper()
	d := must(OpenLink(s.name, sysctls, nil))(s.t)
	p := OpenPort(d, PortOptions{Now: clock.Now})
	s.t.Cleanup(func() { _, _ = p.Close(), d.Close() })
	return d, p
}

func dress(t *testing.T, name string, addrs ...string) netlink.Link {
	t.Helper()
	l := up(t, name)
	for _, a := range addrs {
		na := must(netlink.ParseAddr(a))(t)
		if na.IP.To4() == nil {
			na.Flags = unix.IFA_F_NODAD
		}
		ok(t, netlink.AddrAdd(l, na))
	}
	return l
}

func up(t *testing.T, name string) netlink.Link {
	t.Helper()
	l := must(netlink.LinkByName(name))(t)
	ok(t, netlink.LinkSetUp(l))
	return l
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

// eventually waits for something that an event brings about.
func eventually(t *testing.T, what string, is func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Since(start) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-tick.C
	}
	return time.Since(start)
}

// renew holds the address for as long as the test runs, as the election would, and stops
// when the returned function is called.
func renew(t *testing.T, k *Keeper) (stop func()) {
	t.Helper()
	ok(t, k.Hold(clock.Now().Add(time.Minute)))
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(40 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = k.Hold(clock.Now().Add(time.Minute))
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// echo serves what it reads on a until the test ends.
func echo(t *testing.T, a netip.Addr) string {
	t.Helper()
	l := must(net.Listen("tcp", netip.AddrPortFrom(a, 0).String()))(t)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

func has(t *testing.T, d *Device, index int, a netip.Addr) bool {
	t.Helper()
	return slices.Contains(must(d.addrsOf(index))(t), Host(a))
}
