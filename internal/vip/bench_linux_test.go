package vip

import (
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
	"proxyd/internal/vip/fence"
)

// The benchmarks need a network namespace with an Ethernet interface of the name in
// VIP_BENCH_LINK; without it they measure nothing:
//
//	unshare -n sh -c 'ip link set lo up; ip link add eth0 type veth peer name far0
//	  ip link set eth0 up; ip link set far0 up; ip addr add 10.9.0.1/24 dev eth0
//	  VIP_BENCH_LINK=eth0 go test -run - -bench Device -benchmem ./internal/vip'
func benchDevice(b *testing.B) *Device {
	name := os.Getenv("VIP_BENCH_LINK")
	if name == "" {
		b.Skip("VIP_BENCH_LINK is not set")
	}
	d, err := OpenLink(name, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	b.ReportAllocs()
	b.ResetTimer()
	return d
}

func BenchmarkDevice(b *testing.B) {
	for _, a := range []netip.Addr{vip4, vip6} {
		family := "IPv4"
		if a.Is6() {
			family = "IPv6"
		}
		b.Run("Renew/"+family, func(b *testing.B) {
			d := benchDevice(b)
			for b.Loop() {
				if err := d.Add(Host(a), life); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("AddRemove/"+family, func(b *testing.B) {
			d := benchDevice(b)
			for b.Loop() {
				if err := d.Add(Host(a), life); err != nil {
					b.Fatal(err)
				}
				if err := d.Remove(Host(a)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("Announce/"+family, func(b *testing.B) {
			d := benchDevice(b)
			for b.Loop() {
				if err := d.Announce(a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("HoldWithoutRenewal", func(b *testing.B) {
		d := benchDevice(b)
		p := OpenPort(d, PortOptions{Now: clock.Now})
		defer p.Close()
		k, err := p.Keeper(Host(vip4), Options{})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := k.Hold(clock.Now().Add(life)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParseFrame(b *testing.B) {
	frames, err := arpAnnouncement([6]byte{2, 0, 0, 0, 0, 1}, vip4)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseFrame(frames[0]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMany takes fifty addresses at once, renews them, and moves them out of sight
// again, as a holder does that takes over or hands over; each figure is of all of them.
func BenchmarkMany(b *testing.B) {
	sums := map[string]time.Duration{}
	for _, kind := range []fence.Kind{fence.EBPF, fence.NFTables} {
		b.Run(string(kind), func(b *testing.B) {
			d := benchDevice(b)
			var addrs []netip.Addr
			for i := range 50 {
				addrs = append(addrs, netip.AddrFrom4([4]byte{10, 9, 0, byte(100 + i)}))
			}
			if err := d.PutUpFence(fence.Config{Addresses: addrs, Kind: kind, State: b.TempDir()}); err != nil {
				b.Skip(err)
			}
			p := OpenPort(d, PortOptions{Now: clock.Now})
			defer p.Close()
			var keepers []*Keeper
			for _, a := range addrs {
				k, err := p.Keeper(Host(a), Options{})
				if err != nil {
					b.Fatal(err)
				}
				keepers = append(keepers, k)
			}
			all := func(what string, do func(*Keeper) error) {
				began, used := time.Now(), cpu()
				var done sync.WaitGroup
				for _, k := range keepers {
					done.Go(func() {
						if err := do(k); err != nil {
							b.Errorf("%s: %v", what, err)
						}
					})
				}
				done.Wait()
				sums["ms/"+what] += time.Since(began)
				sums["cpu-ms/"+what] += cpu() - used
			}
			hold := func(k *Keeper) error { return k.Hold(clock.Now().Add(life)) }
			clear(sums)
			for b.Loop() {
				all("take", hold)
				all("renew", hold)
				all("yield", func(k *Keeper) error { return k.Yield(netip.Addr{}) })
				all("drop", (*Keeper).Drop)
			}
			for what, sum := range sums {
				b.ReportMetric(float64(sum.Microseconds())/1000/float64(b.N), what)
			}
		})
	}
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // it cannot fail: the pointer is good
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
