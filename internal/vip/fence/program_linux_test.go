package fence

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
)

// inside reports whether the test runs in namespaces of its own, for network and mounts.
// If not, it runs the test again in a child process that does, and the caller returns.
func inside(t *testing.T) bool {
	t.Helper()
	const mark = "FENCE_TEST_INSIDE"
	if os.Getenv(mark) == t.Name() {
		ok(t, netlink.LinkSetUp(must(netlink.LinkByName("lo"))(t)))
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: there is no eBPF in a user namespace")
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), mark+"="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	out, err := c.CombinedOutput()
	if err != nil || testing.Verbose() {
		t.Logf("%s", out)
	}
	if err != nil {
		t.Errorf("in namespaces of its own: %v", err)
	}
	return false
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

var (
	vip4   = netip.MustParseAddr("10.9.0.100")
	own4   = netip.MustParseAddr("10.9.0.1")
	other4 = netip.MustParseAddr("10.9.0.9")
	vip6   = netip.MustParseAddr("fd09::100")
	own6   = netip.MustParseAddr("fd09::1")
	other6 = netip.MustParseAddr("fd09::9")
)

// frame is an Ethernet frame with its payload padded to the least length.
func frame(kind uint16, payload ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 12, 128), kind)
	for _, p := range payload {
		b = append(b, p...)
	}
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}

func arp(op byte, sender, target netip.Addr) []byte {
	return frame(0x0806, []byte{0, 1, 8, 0, 6, 4, 0, op}, make([]byte, 6), sender.AsSlice(), make([]byte, 6), target.AsSlice())
}

func ip4(source, dest netip.Addr) []byte {
	return frame(0x0800, []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0}, source.AsSlice(), dest.AsSlice(), make([]byte, 20))
}

func ip6(source, dest netip.Addr, next byte, payload []byte) []byte {
	head := []byte{0x60, 0, 0, 0, 0, byte(len(payload)), next, 255}
	return frame(0x86dd, head, source.AsSlice(), dest.AsSlice(), payload)
}

func nd(kind byte, source, dest, target netip.Addr) []byte {
	return ip6(source, dest, icmpv6, append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...))
}

// group is the solicited-node group of vip6.
var group = netip.MustParseAddr("ff02::1:ff00:100")

func TestVerdicts(t *testing.T) {
	if !inside(t) {
		return
	}
	gates, drops := must(ebpf.NewMap(gatesSpec()))(t), must(ebpf.NewMap(dropsSpec()))(t)
	life := must(openToken())(t)
	gone := must(openToken())(t)
	dead := gone.port()
	gone.close()
	now := clock.Now()
	soon, past := now.Add(time.Hour), now-1
	states := []struct {
		name           string
		gate           Gate
		port           uint16
		speak, traffic bool
	}{
		{"fresh", Gate{}, 0, false, false},
		{"held", Gate{Speak: soon}, 0, true, true},
		{"held by a live process", Gate{Speak: soon}, life.port(), true, true},
		{"held by a dead process", Gate{Speak: soon}, dead, false, false},
		{"lease over", Gate{Speak: past}, life.port(), false, false},
		{"draining", Gate{Drain: soon}, 0, false, true},
		{"drained", Gate{Drain: past}, 0, false, false},
	}
	const always, speech, packets = 0, 1, 2
	frames := []struct {
		name    string
		ingress bool
		frame   []byte
		is      int // always passes, or passes as speech or packets do
	}{
		{"ARP request for it", true, arp(1, other4, vip4), speech},
		{"ARP probe for it", true, arp(1, netip.IPv4Unspecified(), vip4), speech},
		{"another's announcement of it, as request", true, arp(1, vip4, vip4), always},
		{"another's announcement of it, as reply", true, arp(2, vip4, vip4), always},
		{"ARP reply to this host", true, arp(2, vip4, own4), always},
		{"ARP request for this host", true, arp(1, other4, own4), always},
		{"IPv4 to it", true, ip4(other4, vip4), packets},
		{"IPv4 to this host", true, ip4(other4, own4), always},
		{"IPv4 from it, held elsewhere", true, ip4(vip4, own4), always},
		{"solicitation of it", true, nd(solicitation, other6, group, vip6), speech},
		{"solicitation of it, to itself", true, nd(solicitation, other6, vip6, vip6), speech},
		{"solicitation of this host", true, nd(solicitation, other6, own6, own6), always},
		{"another's advertisement of it", true, nd(advertisement, vip6, netip.IPv6LinkLocalAllNodes(), vip6), always},
		{"IPv6 to it", true, ip6(other6, vip6, 6, make([]byte, 20)), packets},
		{"echo to it", true, ip6(other6, vip6, icmpv6, []byte{128, 0, 0, 0, 0, 0, 0, 0}), packets},
		{"IPv6 to this host", true, ip6(other6, own6, 6, make([]byte, 20)), always},
		{"runt of IPv6", true, frame(0x86dd, []byte{0x60}), always},
		{"something else", true, frame(0x88cc), always},

		{"own announcement, as request", false, arp(1, vip4, vip4), speech},
		{"own announcement, as reply", false, arp(2, vip4, vip4), speech},
		{"ARP reply for it", false, arp(2, vip4, other4), speech},
		{"own question for it", false, arp(1, own4, vip4), always},
		{"ARP reply for this host", false, arp(2, own4, other4), always},
		{"IPv4 from it", false, ip4(vip4, other4), packets},
		{"IPv4 from this host to it", false, ip4(own4, vip4), always},
		{"advertisement of it", false, nd(advertisement, own6, other6, vip6), speech},
		{"advertisement of it, from it", false, nd(advertisement, vip6, other6, vip6), speech},
		{"advertisement of this host", false, nd(advertisement, own6, other6, own6), always},
		{"solicitation from it", false, nd(solicitation, vip6, other6, other6), speech},
		{"own solicitation of it", false, nd(solicitation, own6, group, vip6), always},
		{"IPv6 from it", false, ip6(vip6, other6, 6, make([]byte, 20)), packets},
		{"IPv6 from this host", false, ip6(own6, other6, 6, make([]byte, 20)), always},
	}
	for _, ingress := range []bool{true, false} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: program(gates, drops, ingress)})
		if ve := (*ebpf.VerifierError)(nil); errors.As(err, &ve) {
			t.Fatalf("%+v", ve)
		}
		ok(t, err)
		for _, s := range states {
			for _, a := range []netip.Addr{vip4, vip6} {
				k := key(a)
				ok(t, gates.Put(k[:], value(s.gate, s.port)))
				ok(t, drops.Put(k[:], make([]uint64, ebpf.MustPossibleCPU())))
			}
			for _, f := range frames {
				if f.ingress != ingress {
					continue
				}
				passes := f.is == always || f.is == speech && s.speak || f.is == packets && s.traffic
				want := uint32(drop)
				if passes {
					want = 0xffffffff // pass
				}
				got, err := p.Run(&ebpf.RunOptions{Data: f.frame})
				ok(t, err)
				if got != want {
					t.Errorf("%s, %s: %d, want %d", s.name, f.name, int32(got), int32(want))
				}
			}
			for _, a := range []netip.Addr{vip4, vip6} {
				// Only an end that came by itself is counted.
				lapsed := s.gate.Speak != 0 && !s.speak
				n, counted := (&programs{drops: drops}).dropped(a)
				if !counted || (n > 0) != lapsed {
					t.Errorf("%s, ingress %v: %d frames of %s counted as dropped", s.name, ingress, n, a)
				}
			}
		}
	}
}

// Many gates are set in one step, and each is as it was said.
func TestManyGatesAreSetInOneStep(t *testing.T) {
	if !inside(t) {
		return
	}
	ok(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far0"}))
	index := must(netlink.LinkByName("eth0"))(t).Attrs().Index
	c := Config{Interface: "eth0", Index: index, State: t.TempDir(), Addresses: append(addresses(200), vip6)}
	gates := map[netip.Addr]Gate{}
	now := clock.Now()
	for i, a := range c.Addresses {
		if gates[a] = (Gate{Speak: now.Add(time.Duration(i+1) * time.Minute)}); i%5 == 0 {
			gates[a] = Gate{}
		}
	}
	t.Run("eBPF", func(t *testing.T) {
		c.Kind, c.Means = EBPF, clsact
		f := must(Open(c))(t)
		defer f.Close()
		p := f.b.(*programs)
		for range 2 {
			ok(t, p.set(gates))
			for a, g := range gates {
				k, v := key(a), make([]byte, valueSize)
				ok(t, p.gates.Lookup(k[:], &v))
				if got := clock.Instant(binary.NativeEndian.Uint64(v)); got != g.Speak {
					t.Fatalf("%s speaks until %d, want %d", a, got, g.Speak)
				}
			}
		}
	})
	t.Run("nftables", func(t *testing.T) {
		c.Kind, c.Means = NFTables, ""
		f := must(Open(c))(t)
		defer f.Close()
		n := f.b.(*tables)
		for range 2 { // the second replaces what the first put there
			ok(t, n.set(gates))
			left := must(n.remains(must(dial())(t)))(t)
			for a, g := range gates {
				set := arpSpeak
				if a.Is6() {
					set = speak6
				}
				end, there := left[entry{set, a}]
				if there != (g.Speak != 0) || there && end.Sub(g.Speak).Abs() > time.Second {
					t.Fatalf("%s is in the set: %v, until %v of what was said", a, there, end.Sub(g.Speak))
				}
			}
		}
		ok(t, f.Set(c.Addresses[1], Gate{}))
		if left := must(n.remains(must(dial())(t)))(t); left[entry{arpSpeak, c.Addresses[1]}] != 0 || left[entry{arpSpeak, c.Addresses[2]}] == 0 {
			t.Error("what was taken back is still there, or another went with it")
		}
	})
}
