package vip

import (
	"net/netip"
	"os"
	"testing"

	"proxyd/internal/clock"
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
