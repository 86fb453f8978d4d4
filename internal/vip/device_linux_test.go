package vip

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
)

func TestHeldAddressIsAnsweredForUntilDropped(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, p := s.open(&Sysctls{})
	mac := must(d.MAC())(t)
	for _, f := range families {
		k := must(p.Keeper(Host(f.vip), Options{}))(t)
		if _, answered := s.ask(f.vip, 50*time.Millisecond); answered {
			t.Fatalf("%s: answered for before Hold", f.name)
		}
		start := time.Now()
		ok(t, k.Hold(clock.Now().Add(time.Minute)))
		held := time.Since(start)
		got, answered := s.ask(f.vip, patience)
		if !answered || got != mac {
			t.Errorf("%s: after Hold %x answers (%v), want %x", f.name, got, answered, mac)
		}
		_, took := k.Stats.Takeover()
		t.Logf("%s: Hold %v, of which until announced %v; first answer %v after the call", f.name, held, took, time.Since(start))
		ok(t, k.Drop())
		if _, answered := s.ask(f.vip, 50*time.Millisecond); answered {
			t.Errorf("%s: answered for after Drop", f.name)
		}
	}
}

// Where lo is down, or without IPv6, an address has no route of ours, and comes all the same.
func TestAddressComesWithoutLoopback(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	cases := []struct {
		name string
		set  func()
	}{
		{"down", func() { ok(t, netlink.LinkSetDown(must(netlink.LinkByName("lo"))(t))) }},
		{"without IPv6", func() {
			up(t, "lo")
			ok(t, os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0))
		}},
	}
	for _, c := range cases {
		c.set()
		var log bytes.Buffer
		d := must(OpenLink(s.name, &Sysctls{}, slog.New(slog.NewTextHandler(&log, nil))))(t)
		for range 2 {
			ok(t, d.Add(Host(vip6), time.Minute))
		}
		if all := must(d.Addrs())(t); !slices.Contains(all, Host(vip6)) {
			t.Errorf("lo %s: the addresses are %v", c.name, all)
		}
		if n := strings.Count(log.String(), "no route of ours"); n != 1 {
			t.Errorf("lo %s: said %d times that there is no route, want once:\n%s", c.name, n, log.String())
		}
		ok(t, d.Remove(Host(vip6)))
		ok(t, d.Close())
	}
}

// What went wrong once is tried again.
func TestGroupThatCouldNotBeJoinedIsJoinedLater(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	var g groups
	defer func() { ok(t, g.close()) }()
	if g.join(vip6, 1<<20) == nil || len(g.joined) != 0 {
		t.Errorf("joined %v on no interface", g.joined)
	}
	index := must(netlink.LinkByName(s.name))(t).Attrs().Index
	for range 2 {
		ok(t, g.join(vip6, index))
	}
	if len(g.joined) != 1 {
		t.Errorf("joined %v, want one", g.joined)
	}
}

func TestVirtualAddressIsNeverASource(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	_, p := s.open(&Sysctls{})
	for _, f := range families {
		stop := renew(t, must(p.Keeper(Host(f.vip), Options{}))(t))
		far := map[string]string{"IPv4": "10.9.0.9", "IPv6": "fd09::9"}[f.name]
		c := must(net.Dial("udp", net.JoinHostPort(far, "9")))(t)
		if got := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); got == f.vip {
			t.Errorf("%s: a connection to the far host is made from the virtual address", f.name)
		}
		_ = c.Close()
		stop()
	}
}

// TestChildHolds is the process that the tests of death kill. On its own it does nothing.
func TestChildHolds(t *testing.T) {
	if os.Getenv("VIP_TEST_CHILD") == "" {
		return
	}
	d := must(OpenLink("eth0", nil, nil))(t)
	p := OpenPort(d, PortOptions{Now: clock.Now})
	for _, f := range families {
		renew(t, must(p.Keeper(Host(f.vip), Options{}))(t))
	}
	fmt.Println("held")
	<-t.Context().Done() // it is killed
	select {}
}

func TestAddressGoesWithItsProcess(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
	}{{"killed", syscall.SIGKILL}, {"frozen", syscall.SIGSTOP}} {
		for _, f := range families {
			t.Run(tt.name+" "+f.name, func(t *testing.T) {
				s := newStage(t)
				c := again(t, "TestChildHolds")
				c.Env = append(c.Env, "VIP_TEST_CHILD=1")
				out := must(c.StdoutPipe())(t)
				ok(t, c.Start())
				t.Cleanup(func() {
					_ = c.Process.Kill()
					_ = c.Wait()
					l := must(netlink.LinkByName("eth0"))(t)
					ok(t, netlink.LinkDel(l))
				})
				for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "held"; {
				}
				s.until(f.vip, true)
				// Longer than one lifetime, so renewals are what keeps it.
				<-time.After(1500 * time.Millisecond)
				s.until(f.vip, true)
				for _, a := range must(netlink.AddrList(must(netlink.LinkByName("eth0"))(t), netlink.FAMILY_ALL))(t) {
					if a.IP.Equal(f.vip.AsSlice()) && (a.ValidLft > 1 || a.PreferedLft != 0) {
						t.Errorf("the kernel keeps it for %d s (preferred %d), want 1 (0)", a.ValidLft, a.PreferedLft)
					}
				}
				ok(t, c.Process.Signal(tt.signal))
				t.Logf("silent %v after the signal", s.until(f.vip, false))
			})
		}
	}
}

func TestYieldedAddressIsSilentAndConnectionsSurvive(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, p := s.open(&Sysctls{})
	ok(t, (&Sysctls{}).Global())
	for _, f := range fencedFamilies() {
		t.Run(f.name, func(t *testing.T) {
			putUp(t, d, f.fence)
			server := echo(t, f.vip) // bound before the address is here
			k := must(p.Keeper(Host(f.vip), Options{}))(t)
			stop := renew(t, k)
			var old net.Conn
			s.inFar(func() { old = must(net.Dial("tcp", server))(t) })
			defer old.Close()
			say := func(when string) {
				t.Helper()
				_ = old.SetDeadline(time.Now().Add(patience))
				ok(t, errors.Join(writeRead(old, when)))
			}
			say("held")

			// New connections throughout the hand-over, over and back again.
			var (
				quit   = make(chan struct{})
				dialer sync.WaitGroup
				failed atomic.Pointer[error]
				made   atomic.Int64
			)
			dialer.Go(func() {
				s.inFar(func() {
					for {
						select {
						case <-quit:
							return
						default:
						}
						c, err := net.DialTimeout("tcp", server, patience)
						if err == nil {
							err = errors.Join(writeRead(c, "new"), c.Close())
						}
						if err != nil {
							err = fmt.Errorf("connection %d: %w", made.Load(), err)
							failed.Store(&err)
							return
						}
						made.Add(1)
					}
				})
			})
			stop()
			retries := s.synRetries()
			for range 20 {
				ok(t, k.Hold(clock.Now().Add(time.Minute)))
				ok(t, k.Yield(netip.Addr{}))
				enough := made.Load() + 3
				eventually(t, "connections go on being made", func() bool {
					return made.Load() >= enough || failed.Load() != nil
				})
			}
			if lost := s.synRetries() - retries; lost > 0 {
				t.Errorf("%d SYNs were lost in 20 hand-overs, want 0", lost)
			}
			if has(t, d, d.place.Load().index, f.vip) || !has(t, d, loopback, f.vip) {
				t.Error("a yielded address is not on loopback alone")
			}
			if mac, answered := s.ask(f.vip, 100*time.Millisecond); answered {
				t.Errorf("%x answers for a yielded address", mac)
			}
			say("yielded")
			close(quit)
			dialer.Wait()
			if err := failed.Load(); err != nil {
				t.Errorf("a new connection failed: %v", *err)
			}
			t.Logf("%d new connections through 20 hand-overs", made.Load())
			ok(t, k.Drop())
			if has(t, d, loopback, f.vip) {
				t.Error("the address is on loopback after Drop")
			}
			if routes := must(d.query.RouteGet(f.vip.AsSlice()))(t); len(routes) == 0 || routes[0].Type == unix.RTN_LOCAL {
				t.Errorf("after Drop the address is reached by %v", routes)
			}
			ok(t, k.Close())
		})
	}
}

func writeRead(c net.Conn, text string) error {
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := c.Read(make([]byte, len(text)))
	return err
}

func TestAnnouncementReplacesANeighboursEntry(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, p := s.open(&Sysctls{})
	mac := must(d.MAC())(t)
	for _, f := range families {
		s.inFar(func() {
			ok(t, netlink.NeighSet(&netlink.Neigh{
				LinkIndex: s.fidx, IP: f.vip.AsSlice(), State: netlink.NUD_STALE,
				HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0xdd},
			}))
		})
		start := time.Now()
		stop := renew(t, must(p.Keeper(Host(f.vip), Options{}))(t))
		eventually(t, f.name+": the far host's table names the holder", func() bool {
			return s.farEntry(f.vip) == net.HardwareAddr(mac[:]).String()
		})
		t.Logf("%s: learnt after %v", f.name, time.Since(start))
		stop()
	}
}

func TestAddressRemovedByHandIsPutBack(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, p := s.open(&Sysctls{})
	for _, f := range families {
		k := must(p.Keeper(Host(f.vip), Options{}))(t)
		ok(t, k.Hold(clock.Now().Add(time.Minute)))
		index := d.place.Load().index
		announced := k.Stats.Announcements.Load()
		var removed time.Time
		took := eventually(t, f.name+": the address is back and announced", func() bool {
			// A renewal may be faster than the news of the removal: then once more.
			if time.Since(removed) > time.Second && k.Stats.Repairs.Load() == 0 {
				removed = time.Now()
				one := net.CIDRMask(f.vip.BitLen(), f.vip.BitLen())
				ok(t, absent(netlink.AddrDel(nil, &netlink.Addr{IPNet: &net.IPNet{IP: f.vip.AsSlice(), Mask: one}, LinkIndex: index})))
			}
			return k.Stats.Repairs.Load() == 1 && k.Stats.Announcements.Load() > announced
		})
		if !has(t, d, index, f.vip) {
			t.Errorf("%s: counted as repaired, and not there", f.name)
		}
		t.Logf("%s: repaired after %v", f.name, took)
		ok(t, k.Drop())
	}
}

func TestForeignClaimIsNoticed(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	_, p := s.open(&Sysctls{})
	for _, f := range families {
		told := make(chan string, 16)
		k := must(p.Keeper(Host(f.vip), Options{OnConflict: func(m net.HardwareAddr) { told <- m.String() }}))(t)
		stop := renew(t, k)
		if f.vip.Is4() {
			for _, frame := range must(arpAnnouncement(s.fmac, f.vip))(t) {
				ok(t, s.arp.send(s.fidx, frame))
			}
		} else {
			ok(t, s.nd.send(s.fidx, must(advertisementFrame(s.fmac, f.vip))(t)))
		}
		if mac := <-told; mac != net.HardwareAddr(s.fmac[:]).String() {
			t.Errorf("%s: conflict with %s, want %x", f.name, mac, s.fmac)
		}
		if k.Stats.Conflicts.Load() == 0 {
			t.Errorf("%s: no conflict counted", f.name)
		}
		stop()
		ok(t, k.Drop())
	}
}

func TestProbeOfARealLink(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	_, p := s.open(&Sysctls{})
	for _, f := range families {
		free := must(p.Keeper(Host(f.vip), Options{}))(t)
		if taken, heard, err := free.Probe(clock.Now(), 90*time.Millisecond); taken || !heard || err != nil {
			t.Errorf("%s: Probe of a free address = %v, %v, %v, want false, true", f.name, taken, heard, err)
		}
	}
	for _, a := range []string{"10.9.0.9", "fd09::9"} { // the far host's own
		k := must(p.Keeper(Host(netip.MustParseAddr(a)), Options{}))(t)
		start := time.Now()
		if taken, heard, err := k.Probe(clock.Now(), 90*time.Millisecond); !taken || !heard || err != nil {
			t.Errorf("%s: Probe of a taken address = %v, %v, %v, want true, true", a, taken, heard, err)
		}
		t.Logf("%s: answered after %v", a, time.Since(start))
	}
}

func TestProbeOfADeafLinkSaysSo(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	_, p := s.open(&Sysctls{})
	k := must(p.Keeper(Host(vip4), Options{}))(t)
	// The kernel knows the far host as reachable, and it is mute.
	l := must(netlink.LinkByName("eth0"))(t)
	ok(t, netlink.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, IP: net.IP{10, 9, 0, 7}, State: netlink.NUD_REACHABLE,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 7},
	}))
	if _, heard, err := k.Probe(clock.Now(), 90*time.Millisecond); heard || err != nil {
		t.Errorf("Probe with a witness that is silent: heard %v, err %v, want false", heard, err)
	}
}

func TestInterfaceMadeAnewIsUsedAgain(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, p := s.open(&Sysctls{})
	k := must(p.Keeper(Host(vip4), Options{}))(t)
	stop := renew(t, k)
	defer stop()
	s.until(vip4, true)
	was := d.place.Load().index
	ok(t, netlink.LinkDel(must(netlink.LinkByName("eth0"))(t)))
	eventually(t, "the fault names the interface", func() bool {
		err := k.Status().Fault
		return errors.Is(err, ErrNoInterface) && strings.Contains(err.Error(), `"eth0"`)
	})
	s.plug()
	if now := must(netlink.LinkByName("eth0"))(t).Attrs().Index; now == was {
		t.Fatal("the new interface has the old one's index: the test proves nothing")
	}
	s.until(vip4, true)
	eventually(t, "the parameters of the new interface are set", func() bool {
		return sysctl(t, "net/ipv4/conf/eth0/arp_ignore") == "1"
	})
}

func TestRenamedInterfaceIsReportedAndFoundAgain(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	_, p := s.open(&Sysctls{})
	k := must(p.Keeper(Host(vip4), Options{}))(t)
	stop := renew(t, k)
	defer stop()
	l := must(netlink.LinkByName("eth0"))(t)
	rename := func(to string) {
		ok(t, netlink.LinkSetDown(l))
		ok(t, netlink.LinkSetName(l, to))
		ok(t, netlink.LinkSetUp(l))
	}
	rename("eth5")
	eventually(t, "the fault names the interface", func() bool {
		return errors.Is(k.Status().Fault, ErrNoInterface)
	})
	s.until(vip4, false)
	rename("eth0")
	s.until(vip4, true)
}

func TestLinkThatGoesDownAndUpKeepsTheAddress(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, p := s.open(&Sysctls{})
	for _, f := range families {
		k := must(p.Keeper(Host(f.vip), Options{}))(t)
		stop := renew(t, k)
		s.until(f.vip, true)
		l := must(netlink.LinkByName("eth0"))(t)
		ok(t, netlink.LinkSetDown(l))
		if up := must(d.Up())(t); up {
			t.Error("Up() = true for a link that is down")
		}
		ok(t, netlink.LinkSetUp(l))
		t.Logf("%s: answered for %v after the link came up", f.name, s.until(f.vip, true))
		stop()
		ok(t, k.Drop())
	}
}

func TestOpenLinkNamesWhatIsMissing(t *testing.T) {
	if !inside(t) {
		return
	}
	_, err := OpenLink("eth7", nil, nil)
	if !errors.Is(err, ErrNoInterface) || !strings.Contains(err.Error(), `"eth7"`) {
		t.Errorf("OpenLink of a missing interface = %v, want ErrNoInterface and its name", err)
	}
	if _, err := OpenLink("lo", nil, nil); err == nil || !strings.Contains(err.Error(), "lo has no Ethernet address") {
		t.Errorf("OpenLink(lo) = %v, want an error that says why", err)
	}
}

func TestAwaitLinkWaitsForALateInterface(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	s.name = "eth1"
	d, err := AwaitLink(t.Context(), "eth1", nil, nil, func(err error) {
		if !errors.Is(err, ErrNoInterface) {
			t.Errorf("reported %v, want ErrNoInterface", err)
		}
		ok(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "late"}))
	})
	ok(t, err)
	ok(t, d.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := AwaitLink(ctx, "eth9", nil, nil, nil); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrNoInterface) {
		t.Errorf("AwaitLink given up = %v, want both reasons", err)
	}
}

func TestSweepAndReleaseRemoveWhatAnEarlierLifeLeft(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(nil)
	vips := []netip.Prefix{netip.PrefixFrom(vip4, 24), netip.PrefixFrom(vip6, 64)}
	index := d.place.Load().index
	leave := func() {
		for _, f := range families {
			ok(t, d.Add(Host(f.vip), time.Hour))
			ok(t, d.Park(Host(f.vip), time.Hour))
		}
	}
	check := func(what string) {
		t.Helper()
		for _, f := range families {
			if has(t, d, index, f.vip) || has(t, d, loopback, f.vip) {
				t.Errorf("%s left %s", what, f.vip)
			}
		}
		if own := must(d.Addrs())(t); len(own) < 2 {
			t.Errorf("%s took the host's own addresses: %v are left", what, own)
		}
	}
	leave()
	if found := must(d.Sweep(vips))(t); len(found) != 2 {
		t.Errorf("Sweep found %v, want both addresses, each once", found)
	}
	check("Sweep")
	leave()
	ok(t, Release(map[string][]netip.Prefix{"eth0": vips, "eth7": vips}))
	check("Release")

	foreign := must(netlink.ParseAddr(netip.PrefixFrom(vip4, 24).String()))(t)
	ok(t, netlink.AddrAdd(must(netlink.LinkByName("eth0"))(t), foreign))
	if _, err := d.Sweep(vips); err == nil || !strings.Contains(err.Error(), "10.9.0.100/24 is on eth0 already") {
		t.Errorf("Sweep of a static address = %v, want an error that names it", err)
	}
}

func TestSysctlsAreSetAndRestored(t *testing.T) {
	if !inside(t) {
		return
	}
	newStage(t)
	paths := []string{
		"net/ipv4/ip_nonlocal_bind", "net/ipv6/ip_nonlocal_bind",
		"net/ipv4/conf/eth0/arp_ignore", "net/ipv4/conf/eth0/arp_announce",
	}
	var before []string
	for _, p := range paths {
		before = append(before, sysctl(t, p))
	}
	var s Sysctls
	ok(t, errors.Join(s.Global(), s.Interface("eth0"), s.Interface("eth0")))
	for i, want := range []string{"1", "1", "1", "2"} {
		if got := sysctl(t, paths[i]); got != want {
			t.Errorf("%s = %s, want %s", paths[i], got, want)
		}
	}
	ok(t, s.Restore())
	for i, p := range paths {
		if got := sysctl(t, p); got != before[i] {
			t.Errorf("%s = %s after Restore, want %s", p, got, before[i])
		}
	}
	err := s.Interface("eth7")
	if err == nil || !strings.Contains(err.Error(), "net.ipv4.conf.eth7.arp_ignore") {
		t.Errorf("Interface(eth7) = %v, want an error that names the parameter", err)
	}
}

func sysctl(t *testing.T, path string) string {
	t.Helper()
	return strings.TrimSpace(string(must(os.ReadFile("/proc/sys/" + path))(t)))
}

func TestPrivilegesNamesWhatIsMissing(t *testing.T) {
	if err := lacking(1<<12 | 1<<13); err != nil {
		t.Errorf("with both capabilities: %v", err)
	}
	for _, tt := range []struct {
		have uint64
		want []string
	}{
		{0, []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
		{1 << 12, []string{"CAP_NET_RAW"}},
		{1 << 13, []string{"CAP_NET_ADMIN"}},
	} {
		err := lacking(tt.have)
		for _, name := range tt.want {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("lacking(%#x) = %v, want it to name %s", tt.have, err, name)
			}
		}
	}
}

func TestInReachNamesTheSubnets(t *testing.T) {
	own := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("10.1.0.5/16"),
		netip.MustParsePrefix("203.0.113.10/32"), netip.MustParsePrefix("fd00::5/64"),
	}
	for _, tt := range []struct{ vip, want string }{
		{"10.0.0.100/24", ""},
		{"fd00::100/64", ""},
		{"203.0.113.10/24", "203.0.113.10/24 is not in any subnet of eth0 (10.0.0.0/24, 10.1.0.0/16)"},
		{"fd01::1/64", "fd01::1/64 is not in any subnet of eth0 (fd00::/64)"},
	} {
		err := inReach(netip.MustParsePrefix(tt.vip), "eth0", own)
		if got := fmt.Sprint(err); (err == nil) != (tt.want == "") || tt.want != "" && got != tt.want {
			t.Errorf("InReach(%s) = %v, want %q", tt.vip, err, tt.want)
		}
	}
	err := inReach(netip.MustParsePrefix("10.0.0.100/24"), "eth0", nil)
	if err == nil || !strings.Contains(err.Error(), "no IPv4 address") {
		t.Errorf("InReach without addresses = %v", err)
	}
}
