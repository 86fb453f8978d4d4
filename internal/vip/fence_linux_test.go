package vip

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"proxyd/internal/clock"
	"proxyd/internal/vip/bpf"
	"proxyd/internal/vip/fence"
	"proxyd/internal/vip/relay"
)

// fences are the fences that a kernel may have, and none.
var fences = []fence.Config{
	{Kind: fence.EBPF, Means: "tcx"},
	{Kind: fence.EBPF, Means: "clsact"},
	{Kind: fence.NFTables},
	{Kind: fence.Lifetime},
}

type fencedFamily struct {
	name  string
	vip   netip.Addr
	fence fence.Config
}

// fencedFamilies is each fence with each family.
func fencedFamilies() (all []fencedFamily) {
	for _, c := range fences {
		for _, f := range families {
			all = append(all, fencedFamily{strings.TrimSpace(string(c.Kind)+" "+c.Means) + " " + f.name, f.vip, c})
		}
	}
	return all
}

// putUp puts a fence up until the test ends. A kernel that has none of the kind, or a user
// namespace, skips the test.
func putUp(t *testing.T, d *Device, c fence.Config) *fence.Fence {
	t.Helper()
	c.Addresses = []netip.Addr{vip4, vip6}
	if c.State == "" {
		c.State = t.TempDir()
	}
	err := d.PutUpFence(c)
	if err != nil && c.Kind == fence.EBPF {
		t.Skip(err)
	}
	ok(t, err)
	f := d.Fence()
	t.Cleanup(func() {
		d.fence.Store(nil)
		ok(t, f.Close())
	})
	return f
}

// A frozen process renews nothing. Its kernel answers until the lease's end and not after.
func TestFenceSilencesAtTheLeasesEnd(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(&Sysctls{})
	for _, f := range fencedFamilies() {
		if f.fence.Kind == fence.Lifetime {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			up := putUp(t, d, f.fence)
			t.Logf("put up in %v", up.Status().Opening)
			ok(t, d.Add(Host(f.vip), time.Minute))
			t.Cleanup(func() { ok(t, d.Remove(Host(f.vip))) })
			if _, answered := s.ask(f.vip, 50*time.Millisecond); answered {
				t.Error("a fresh fence lets the address answer")
			}
			for range 3 { // each prolongs the one before
				lease(t, d, f.vip, clock.Now().Add(400*time.Millisecond))
				if _, answered := s.ask(f.vip, 200*time.Millisecond); !answered {
					t.Error("it does not answer though its lease lasts")
				}
			}
			end := clock.Now().Add(300 * time.Millisecond)
			lease(t, d, f.vip, end)
			var last clock.Instant
			for clock.Now() < end.Add(300*time.Millisecond) {
				asked := clock.Now()
				if _, answered := s.ask(f.vip, 20*time.Millisecond); answered {
					last = asked
				}
			}
			if last > end {
				t.Errorf("it answers %v after its lease's end", last.Sub(end))
			} else {
				t.Logf("last answer to a question %v before the end", end.Sub(last))
			}
			// What it says by itself is kept back too, where the kernel can.
			if f.fence.Kind == fence.EBPF {
				before := s.farEntry(f.vip)
				_ = d.Announce(f.vip) // a frame that was dropped is an error, or not
				if after := s.farEntry(f.vip); after != before {
					t.Errorf("an announcement got through: %s, then %s", before, after)
				}
				if n, counted := up.Dropped(f.vip); !counted || n == 0 {
					t.Errorf("%d frames counted as dropped, %v", n, counted)
				}
			}
			lease(t, d, f.vip, clock.Now().Add(time.Minute))
			s.until(f.vip, true)
		})
	}
}

func lease(t *testing.T, d *Device, a netip.Addr, end clock.Instant) {
	t.Helper()
	ok(t, d.Gate(a, fence.Gate{Speak: end}))
}

// TestChildFences is the process that is killed in TestFenceOutlivesItsProcess. Its leases
// are long: only its death can end them.
func TestChildFences(t *testing.T) {
	means := os.Getenv("VIP_TEST_FENCE")
	if means == "" {
		return
	}
	d := must(OpenLink("eth0", nil, nil))(t)
	ok(t, d.PutUpFence(fence.Config{
		Kind: fence.EBPF, Means: means, State: "/state", Addresses: []netip.Addr{vip4, vip6},
		Token: os.Getenv("VIP_TEST_TOKEN") != "",
	}))
	for _, f := range families {
		ok(t, d.Gate(f.vip, fence.Gate{Speak: clock.Now().Add(time.Second)}))
		ok(t, d.Add(Host(f.vip), time.Minute))
	}
	fmt.Println("held")
	<-t.Context().Done() // it is killed
	select {}
}

func TestFenceOutlivesItsProcess(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, c := range fences {
		if c.Kind != fence.EBPF {
			continue
		}
		for _, token := range []string{"", "1"} {
			t.Run(c.Means+" token "+token, func(t *testing.T) {
				s := newStage(t)
				d := must(OpenLink("eth0", &Sysctls{}, nil))(t)
				putUp(t, d, c) // so that what cannot be had is skipped
				ok(t, d.Fence().Close())
				child := again(t, "TestChildFences")
				child.Env = append(child.Env, "VIP_TEST_FENCE="+c.Means, "VIP_TEST_TOKEN="+token)
				out := must(child.StdoutPipe())(t)
				ok(t, child.Start())
				t.Cleanup(func() {
					_ = child.Process.Kill()
					ok(t, netlink.LinkDel(must(netlink.LinkByName("eth0"))(t)))
				})
				lines := bufio.NewScanner(out)
				for lines.Scan() && lines.Text() != "held" {
				}
				began := time.Now()
				ok(t, child.Process.Signal(syscall.SIGKILL))
				_ = child.Wait()
				silent := s.until(vip4, false)
				s.until(vip6, false)
				t.Logf("silent %v after its death", silent)
				if token != "" && time.Since(began) > 900*time.Millisecond {
					t.Errorf("silent %v after its death, with the lease", silent)
				}
				// The next life finds it, and shuts it before anything else.
				next := c
				next.State, next.Addresses = "/state", []netip.Addr{vip4}
				ok(t, d.PutUpFence(next))
				if !d.Fence().Status().Adopted {
					t.Error("the next life did not take it over")
				}
				if _, answered := s.ask(vip4, 50*time.Millisecond); answered {
					t.Error("answered before the next life held it")
				}
				s.until(vip6, true) // no more fenced, and still there
				lease(t, d, vip4, clock.Now().Add(time.Minute))
				s.until(vip4, true)
				ok(t, d.Fence().Close())
				ok(t, d.Fence().Close()) // twice is once
				d.fence.Store(nil)
			})
		}
	}
}

// A life that goes on where another stopped must not be silent in between.
func TestFenceIsKeptForTheNextLife(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(&Sysctls{})
	for _, f := range fencedFamilies() {
		if f.fence.Kind == fence.Lifetime {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			first := putUp(t, d, f.fence)
			state := t.TempDir()
			c := f.fence
			c.State, c.Addresses, c.Token = state, []netip.Addr{f.vip}, true
			ok(t, first.Close())
			ok(t, d.PutUpFence(c))
			ok(t, d.Add(Host(f.vip), time.Minute))
			t.Cleanup(func() { ok(t, d.Remove(Host(f.vip))) })
			lease(t, d, f.vip, clock.Now().Add(time.Minute))
			s.until(f.vip, true)
			ok(t, d.Fence().Leave())
			if _, answered := s.ask(f.vip, time.Second); !answered {
				t.Error("silent when its process has left")
			}
			c.Keep = true
			ok(t, d.PutUpFence(c))
			if _, answered := s.ask(f.vip, time.Second); !answered {
				t.Error("silent when the next has come")
			}
			if !d.Fence().Status().Adopted {
				t.Error("the next life did not take it over")
			}
			c.Keep = false
			ok(t, d.Fence().Leave())
			ok(t, d.PutUpFence(c))
			if _, answered := s.ask(f.vip, 50*time.Millisecond); answered {
				t.Error("answered when all was to be shut")
			}
			ok(t, d.Fence().Close())
			s.until(f.vip, true) // none any more
		})
	}
}

func TestInterfaceMadeAnewHasItsFence(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, c := range fences {
		if c.Kind == fence.Lifetime {
			continue
		}
		t.Run(string(c.Kind)+" "+c.Means, func(t *testing.T) {
			s := newStage(t)
			d, _ := s.open(&Sysctls{})
			f := putUp(t, d, c)
			ok(t, netlink.LinkDel(must(netlink.LinkByName("eth0"))(t)))
			if c.Kind == fence.EBPF && f.Status().Fault == nil {
				t.Error("the fence does not know that its interface is gone")
			}
			s.plug()
			ok(t, d.Add(Host(vip4), time.Minute))
			if _, answered := s.ask(vip4, 50*time.Millisecond); answered {
				t.Error("the new interface has no fence")
			}
			if err := f.Status().Fault; err != nil {
				t.Error(err)
			}
			lease(t, d, vip4, clock.Now().Add(time.Minute))
			s.until(vip4, true)
			ok(t, netlink.LinkDel(must(netlink.LinkByName("eth0"))(t)))
		})
	}
}

// takeAway does what a careless operator does to the fence of eth0.
func takeAway(t *testing.T, c fence.Config) {
	t.Helper()
	switch {
	case c.Kind == fence.NFTables: // as `flush ruleset` at the begin of a script
		conn := must(nftables.New())(t)
		conn.FlushRuleset()
		ok(t, conn.Flush())
	case c.Means == "clsact":
		ok(t, netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: must(netlink.LinkByName("eth0"))(t).Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}}))
	default:
		ok(t, os.RemoveAll(must(bpf.PinsOf(c.State, "eth0"))(t).Dir()))
	}
}

func TestFenceThatWasTakenAwayIsPutBack(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(&Sysctls{})
	for _, f := range fencedFamilies() {
		if f.fence.Kind == fence.Lifetime {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			c := f.fence
			c.State = t.TempDir()
			putUp(t, d, c)
			ok(t, d.Add(Host(f.vip), time.Minute))
			t.Cleanup(func() { ok(t, d.Remove(Host(f.vip))) })
			if had, err := d.MendFence(); had || err != nil {
				t.Errorf("MendFence of a whole fence = %v, %v", had, err)
			}
			lease(t, d, f.vip, clock.Now().Add(time.Minute))
			takeAway(t, c)
			if d.Fence().Status().Fault == nil {
				t.Error("it does not know that it was taken away")
			}
			if had, err := d.MendFence(); !had || err != nil {
				t.Errorf("MendFence = %v, %v, want true", had, err)
			}
			if err := d.Fence().Status().Fault; err != nil {
				t.Error(err)
			}
			s.until(f.vip, true) // as its lease has it
			lease(t, d, f.vip, clock.Now().Add(time.Millisecond))
			time.Sleep(20 * time.Millisecond)
			if _, answered := s.ask(f.vip, 50*time.Millisecond); answered {
				t.Error("the address answers after its lease")
			}
			// A lease that comes before anybody looked counts as well.
			takeAway(t, c)
			lease(t, d, f.vip, clock.Now().Add(time.Minute))
			_, err := d.MendFence()
			ok(t, err)
			s.until(f.vip, true)
		})
	}
}

// An address that is no virtual one any more may be the host's own.
func TestFenceForgetsAnAddress(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(&Sysctls{})
	for _, f := range fencedFamilies() {
		t.Run(f.name, func(t *testing.T) {
			putUp(t, d, f.fence)
			ok(t, d.Unfenced(f.vip))
			ok(t, d.Add(Host(f.vip), time.Minute))
			s.until(f.vip, true)
			ok(t, d.Remove(Host(f.vip)))
			if err := d.Gate(f.vip, fence.Gate{}); f.fence.Kind != fence.Lifetime && err == nil {
				t.Error("it is fenced still")
			}
			ok(t, d.Fenced(f.vip))
			ok(t, d.Add(Host(f.vip), time.Minute))
			if _, answered := s.ask(f.vip, 50*time.Millisecond); answered && f.fence.Kind != fence.Lifetime {
				t.Error("fenced again, it answers without a lease")
			}
			ok(t, d.Remove(Host(f.vip)))
		})
	}
}

// What an earlier life put up by other means would be shut for ever.
func TestFenceOfAnotherKindIsTakenDown(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(&Sysctls{})
	ok(t, d.Add(Host(vip4), time.Minute))
	for _, first := range fences {
		for _, second := range fences {
			if first.Kind+fence.Kind(first.Means) == second.Kind+fence.Kind(second.Means) || first.Kind == fence.Lifetime {
				continue
			}
			t.Run(first.Means+string(first.Kind)+" then "+second.Means+string(second.Kind), func(t *testing.T) {
				putUp(t, d, first)
				first.State, second.State = "/state", "/state"
				first.Addresses, second.Addresses = []netip.Addr{vip4}, []netip.Addr{vip4}
				ok(t, d.Fence().Close())
				ok(t, d.PutUpFence(first))
				ok(t, d.Fence().Leave())
				ok(t, d.PutUpFence(second))
				lease(t, d, vip4, clock.Now().Add(time.Minute))
				s.until(vip4, true)
				ok(t, d.Fence().Leave())
				ok(t, fence.Remove("/state", "eth0"))
				s.until(vip4, true)
				ok(t, fence.Remove("/state", "eth0")) // there is nothing
			})
		}
	}
}

func TestFenceThatCannotBeHadSaysWhy(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(&Sysctls{})
	c := fence.Config{Kind: "wall", State: "/state", Addresses: []netip.Addr{vip4}}
	if err := d.PutUpFence(c); err == nil || !strings.Contains(err.Error(), "wall") {
		t.Errorf("a fence of no kind: %v", err)
	}
	putUp(t, d, fence.Config{Kind: fence.Lifetime})
	if s := d.Fence().Status(); s.Kind != fence.Lifetime || s.Fault != nil {
		t.Errorf("status of none: %+v", s)
	}
	if err := d.Gate(netip.MustParseAddr("10.9.0.7"), fence.Gate{}); err == nil {
		t.Error("an address that is not fenced was taken")
	}
}

func TestARelayInThePlaceOfAnotherLeavesNothingOfIt(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(&Sysctls{})
	ok(t, d.OpenRelay(relay.Config{Way: relay.Nftables, State: "/state"}))
	ok(t, d.SendOn(vip4, Seat{Addr: netip.MustParseAddr("10.9.0.2")}, clock.Now().Add(time.Minute)))
	tables := func() (n int) { return len(must(must(nftables.New())(t).ListTables())(t)) }
	if tables() == 0 {
		t.Fatal("the relay made no tables")
	}
	ok(t, d.OpenRelay(relay.Config{Way: relay.Plain, State: "/state"}))
	if n := tables(); n != 0 {
		t.Errorf("%d tables are left", n)
	}
}

// A life that has no VIPs any more must find what the one before it, which crashed, has left.
func TestWhatAnEarlierLifeLeftIsFoundWithoutAConfiguration(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	d, _ := s.open(&Sysctls{})
	for _, c := range fences {
		if c.Kind == fence.Lifetime {
			continue // the addresses go by themselves
		}
		t.Run(string(c.Kind)+c.Means, func(t *testing.T) {
			putUp(t, d, c) // so that what cannot be had is skipped
			ok(t, d.Fence().Close())
			c.State, c.Addresses = "/state", []netip.Addr{vip4, vip6}
			ok(t, d.PutUpFence(c))
			ok(t, d.Add(Host(vip4), time.Minute))
			ok(t, d.Park(Host(vip6), time.Minute))
			ok(t, d.Fence().Leave())
			if left := fence.Left("/other"); len(left) > 0 {
				t.Errorf("another node is said to have left %v", left)
			}
			left := fence.Left("/state")
			if want := []netip.Addr{vip4, vip6}; len(left) != 1 || !slices.Equal(left["eth0"], want) {
				t.Fatalf("Left = %v, want %v on eth0", left, want)
			}
			found := must(ReleaseLeft(left))(t)
			if len(found) != 2 {
				t.Errorf("ReleaseLeft found %v, want both addresses", found)
			}
			// The host may have one for good by now.
			static := &netlink.Addr{IPNet: &net.IPNet{IP: vip4.AsSlice(), Mask: net.CIDRMask(32, 32)}}
			ok(t, netlink.AddrAdd(must(netlink.LinkByName("eth0"))(t), static))
			if found := must(ReleaseLeft(left))(t); len(found) > 0 || !has(t, d, d.place.Load().index, vip4) {
				t.Errorf("ReleaseLeft took %v, which the host has for good", found)
			}
			ok(t, netlink.AddrDel(must(netlink.LinkByName("eth0"))(t), static))
			ok(t, fence.Remove("/state", "eth0"))
			if left := fence.Left("/state"); len(left) > 0 {
				t.Errorf("after Remove there is %v", left)
			}
		})
	}
}
