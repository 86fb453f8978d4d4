package fence

import (
	"fmt"
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

// benchInside is inside for a benchmark, whose figures the child prints.
func benchInside(b *testing.B) bool {
	const mark = "FENCE_BENCH_INSIDE"
	if os.Getenv(mark) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	c := exec.CommandContext(b.Context(), "/proc/self/exe", "-test.run=^$", "-test.bench=^"+b.Name()+"$", "-test.benchtime=200ms")
	c.Env = append(os.Environ(), mark+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	out, err := c.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	b.Logf("%s", out)
	return false
}

// BenchmarkSet is what each lease costs the holder, once a beat, of one address and of fifty.
func BenchmarkSet(b *testing.B) {
	if !benchInside(b) {
		return
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far0"}); err != nil {
		b.Fatal(err)
	}
	for _, c := range []Config{{Kind: EBPF, Means: tcx}, {Kind: EBPF, Means: clsact}, {Kind: NFTables}} {
		for _, n := range []int{1, 50} {
			b.Run(fmt.Sprintf("%s%s/%d", c.Kind, c.Means, n), func(b *testing.B) {
				c.Interface, c.Index, c.State, c.Addresses = "eth0", indexOf("eth0"), b.TempDir(), addresses(n)
				benchSet(b, c)
			})
		}
	}
}

func benchSet(b *testing.B, c Config) {
	f, err := Open(c)
	if err != nil {
		b.Skip(err)
	}
	defer f.Close()
	gates := map[netip.Addr]Gate{}
	for b.Loop() {
		for _, a := range c.Addresses {
			gates[a] = Gate{Speak: clock.Now().Add(240 * time.Millisecond)}
		}
		if err := f.b.set(gates); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(f.Status().Opening.Microseconds())/1000, "ms/open")
}

// BenchmarkFrame is what a frame costs in the kernel, without and with a token to look for.
func BenchmarkFrame(b *testing.B) {
	if !benchInside(b) {
		return
	}
	if lo, err := netlink.LinkByName("lo"); err != nil || netlink.LinkSetUp(lo) != nil {
		b.Fatal("lo is not there")
	}
	gates, err := ebpf.NewMap(gatesSpec())
	if err != nil {
		b.Skip(err)
	}
	drops, err := ebpf.NewMap(dropsSpec())
	if err != nil {
		b.Skip(err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: program(gates, drops, true)})
	if err != nil {
		b.Skip(err)
	}
	life, err := openToken()
	if err != nil {
		b.Fatal(err)
	}
	defer life.close()
	end := clock.Now().Add(time.Hour)
	for _, f := range []struct {
		name  string
		frame []byte
		port  uint16
	}{
		{"of others", ip4(other4, own4), 0},
		{"for the address", ip4(other4, vip4), 0},
		{"for the address, with a token", ip4(other4, vip4), life.port()},
	} {
		b.Run(f.name, func(b *testing.B) {
			k := key(vip4)
			if err := gates.Put(k[:], value(Gate{Speak: end}, f.port)); err != nil {
				b.Fatal(err)
			}
			_, each, err := p.Benchmark(f.frame, 1_000_000, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(each.Nanoseconds()), "ns/frame")
			b.ReportMetric(0, "ns/op")
		})
	}
}
