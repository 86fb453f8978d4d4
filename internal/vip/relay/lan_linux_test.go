package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var (
	vip4     = netip.MustParseAddr("10.9.0.100")
	vip6     = netip.MustParseAddr("fd09::100")
	families = []struct {
		name string
		vip  netip.Addr
	}{{"IPv4", vip4}, {"IPv6", vip6}}
)

const port = 7000

// patience is for how long an event is waited for that a busy machine may delay.
const patience = 20 * time.Second

// inside reports whether the test runs in a network namespace of its own. If not, it runs
// the test again in a child process that does, and the caller returns.
func inside(t *testing.T) bool {
	t.Helper()
	const mark = "RELAY_TEST_INSIDE"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("eBPF needs root")
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), mark+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("in a network namespace of its own: %v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}

// A host is a network namespace with an interface at the bridge of this process's.
type host struct {
	t     *testing.T
	name  string
	last  byte
	space netns.NsHandle
	place Place
}

// plug makes a host. Its addresses end with last, and so does its MAC.
func plug(t *testing.T, name string, last byte) *host {
	t.Helper()
	h := &host{t: t, name: name, last: last}
	h.elsewhere(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() {
		h.space = must(netns.Get())(t)
		up(t, "lo")
	})
	t.Cleanup(func() { _ = h.space.Close() })
	bridge, err := netlink.LinkByName("lan")
	if err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "lan"
		off := false
		bridge = &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
		ok(t, netlink.LinkAdd(bridge))
		up(t, "lan")
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, last}
	ok(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "to-" + name, MasterIndex: bridge.Attrs().Index},
		PeerName:  "eth0", PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(h.space),
	}))
	cable := up(t, "to-"+name)
	t.Cleanup(func() { _ = netlink.LinkDel(cable) }) // the namespace may last a moment longer
	h.do(func() {
		ok(t, os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0))
		l := up(t, "eth0")
		for _, a := range []string{fmt.Sprintf("10.9.0.%d/24", last), fmt.Sprintf("fd09::%x/64", last)} {
			na := must(netlink.ParseAddr(a))(t)
			if na.IP.To4() == nil {
				na.Flags = unix.IFA_F_NODAD
			}
			ok(t, netlink.AddrAdd(l, na))
		}
		h.place = Place{Index: l.Attrs().Index, Name: "eth0", MAC: [6]byte(mac)}
	})
	return h
}

// addr is the host's own address of the family of vip.
func (h *host) addr(vip netip.Addr) netip.Addr {
	if vip.Is4() {
		return netip.AddrFrom4([4]byte{10, 9, 0, h.last})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd09::%x", h.last))
}

// do runs f in the host.
func (h *host) do(f func()) {
	h.t.Helper()
	h.elsewhere(func() error { return netns.Set(h.space) }, f)
}

func (h *host) elsewhere(enter func() error, f func()) {
	h.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		err := errors.New("the test failed elsewhere")
		defer func() { done <- err }()
		if err = enter(); err == nil {
			f()
		}
	}()
	ok(h.t, <-done)
}

// settled waits until the hosts reach each other: a new port of a bridge may take a second.
func settled(t *testing.T, hosts ...*host) {
	t.Helper()
	for _, from := range hosts {
		for _, to := range hosts {
			for _, f := range families {
				from.do(func() {
					for end := time.Now().Add(patience); from != to; {
						// Nothing listens there: a refusal is an answer.
						_, err := net.DialTimeout("tcp", netip.AddrPortFrom(to.addr(f.vip), 9).String(), 100*time.Millisecond)
						if errors.Is(err, syscall.ECONNREFUSED) {
							break
						}
						if time.Now().After(end) {
							t.Fatalf("%s does not reach %s: %v", from.name, to.name, err)
						}
					}
				})
			}
		}
	}
}

// serve gives the host the virtual addresses, parked, and a server at all its addresses
// that says the host's name and then echoes lines.
func (h *host) serve() {
	h.do(func() {
		lo := must(netlink.LinkByName("lo"))(h.t)
		for _, v := range []netip.Addr{vip4, vip6} {
			n := v.BitLen()
			to := &net.IPNet{IP: v.AsSlice(), Mask: net.CIDRMask(n, n)}
			ok(h.t, netlink.AddrAdd(lo, &netlink.Addr{IPNet: to, Flags: unix.IFA_F_NODAD}))
			if v.Is6() {
				// Linux makes the address local a while after it has it, and loses datagrams until then.
				ok(h.t, netlink.RouteAdd(&netlink.Route{
					LinkIndex: lo.Attrs().Index, Dst: to, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Priority: 4096,
				}))
			}
		}
		ok(h.t, os.WriteFile("/proc/sys/net/ipv4/conf/eth0/arp_ignore", []byte("1"), 0))
		ok(h.t, os.WriteFile("/proc/sys/net/ipv4/conf/eth0/arp_announce", []byte("2"), 0))
		l := must(net.Listen("tcp", fmt.Sprintf(":%d", port)))(h.t)
		h.t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.WriteString(c, h.name+"\n")
					_, _ = io.Copy(c, c)
				}()
			}
		}()
	})
}

// sends makes the host send what is for the virtual addresses to another.
func (h *host) sends(to *host) {
	h.t.Helper()
	h.do(func() {
		for _, v := range []netip.Addr{vip4, vip6} {
			family := netlink.FAMILY_V4
			if v.Is6() {
				family = netlink.FAMILY_V6
			}
			ok(h.t, netlink.NeighSet(&netlink.Neigh{
				LinkIndex: h.place.Index, Family: family, State: netlink.NUD_PERMANENT,
				IP: v.AsSlice(), HardwareAddr: to.place.MAC[:],
			}))
		}
	})
}

// mark is how the ids of the host's connections of QUIC begin.
func (h *host) mark() Mark { return Mark{11, 0xc1, 0xc2, 0, 0, h.last} }

// answer has the host answer each datagram at the virtual addresses with its name.
func (h *host) answer() {
	h.do(func() {
		for _, v := range []netip.Addr{vip4, vip6} {
			c := must(net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(v, port))))(h.t)
			h.t.Cleanup(func() { _ = c.Close() })
			go func() {
				b := make([]byte, 1500)
				for {
					_, from, err := c.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					_, _ = c.WriteToUDPAddrPort([]byte(h.name), from)
				}
			}()
		}
	})
}

// wantAnswer sends a datagram to the virtual address and wants it answered from there, by a host.
func (h *host) wantAnswer(vip netip.Addr, datagram []byte, by *host, what string) {
	h.t.Helper()
	h.do(func() {
		c := must(net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(vip, port))))(h.t)
		defer c.Close()
		must(c.Write(datagram))(h.t)
		_ = c.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil || string(b[:n]) != by.name {
			h.t.Errorf("%s is answered by %q, %v, want %s", what, b[:n], err, by.name)
		}
	})
}

// relay opens a relay at the host.
func (h *host) relay(way Way) (r *Relay) {
	h.t.Helper()
	h.do(func() { r = must(Open(h.config(way, false)))(h.t) })
	h.t.Cleanup(func() { h.do(func() { ok(h.t, r.Close()) }) })
	return r
}

func (h *host) config(way Way, keep bool) Config {
	return Config{Way: way, Place: h.place, Mark: h.mark(), State: "/state/" + h.name, Keep: keep}
}

// A conn is a client's connection, of which the server has told its name.
type conn struct {
	net.Conn
	lines *bufio.Reader
	by    string
}

func (h *host) dial(vip netip.Addr) (*conn, error) {
	var c *conn
	var err error
	h.do(func() {
		var raw net.Conn
		if raw, err = net.DialTimeout("tcp", netip.AddrPortFrom(vip, port).String(), patience); err != nil {
			return
		}
		h.t.Cleanup(func() { _ = raw.Close() })
		c = &conn{Conn: raw, lines: bufio.NewReader(raw)}
		_ = raw.SetDeadline(time.Now().Add(patience))
		c.by, err = c.lines.ReadString('\n')
	})
	return c, err
}

// wantEcho sends a line many times and wants it back.
func (c *conn) wantEcho(t *testing.T, when string) {
	t.Helper()
	for i := range 20 {
		line := fmt.Sprintf("line %d %s\n", i, when)
		_, err := io.WriteString(c, line)
		got := ""
		if err == nil {
			got, err = c.lines.ReadString('\n')
		}
		if err != nil || got != line {
			t.Fatalf("%s: echo %d = %q, %v", when, i, got, err)
		}
	}
}

func (h *host) wantDial(vip netip.Addr, by *host, when string) *conn {
	h.t.Helper()
	c, err := h.dial(vip)
	if err != nil {
		h.t.Fatalf("%s: dial %s: %v", when, vip, err)
	}
	if c.by != by.name+"\n" {
		h.t.Fatalf("%s: a new connection is served by %q, want %s", when, c.by, by.name)
	}
	return c
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
