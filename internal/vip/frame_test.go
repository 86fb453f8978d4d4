package vip

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

var (
	neighbour = [6]byte{2, 0, 0, 0, 0, 7}
	group     = [6]byte{1, 0, 0x5e, 0, 0, 7}
)

// ethernetFrame is a frame of kind from mac, with a body of bytes and strings.
func ethernetFrame(mac [6]byte, kind string, body ...string) []byte {
	b := append(bytes.Repeat([]byte{0xff}, 6), mac[:]...)
	return append(append(b, kind...), strings.Join(body, "")...)
}

func ipv6Frame(hops byte, source netip.Addr, body string) []byte {
	to := netip.IPv6LinkLocalAllNodes().As16()
	from := source.As16()
	head := "\x60\x00\x00\x00\x00" + string([]byte{byte(len(body)), icmpv6, hops})
	return ethernetFrame(neighbour, "\x86\xdd", head, string(from[:]), string(to[:]), body)
}

func TestParseFrame(t *testing.T) {
	const (
		arp4    = "\x00\x01\x08\x00\x06\x04"
		request = "\x00\x01"
		reply   = "\x00\x02"
		mac     = "\x02\x00\x00\x00\x00\x07"
		other   = "\x02\x00\x00\x00\x00\x08"
		nobody  = "\x00\x00\x00\x00\x00\x00"
		ip      = "\x0a\x00\x00\x64"
		noIP    = "\x00\x00\x00\x00"
	)
	var (
		a       = netip.MustParseAddr("10.0.0.100")
		six     = netip.MustParseAddr("fd00::100")
		bytes6  = six.As16()
		text6   = string(bytes6[:])
		link    = netip.MustParseAddr("fe80::7")
		nobody6 = netip.IPv6Unspecified()
		second  = [6]byte([]byte(other))
	)
	tests := []struct {
		name  string
		frame []byte
		want  Heard
		err   error
	}{
		{"ARP reply", ethernetFrame(neighbour, "\x08\x06", arp4, reply, mac, ip, mac, ip), Heard{neighbour, a}, nil},
		{"ARP request claims its sender", ethernetFrame(neighbour, "\x08\x06", arp4, request, mac, ip, nobody, noIP), Heard{neighbour, a}, nil},
		{"ARP probe claims nothing", ethernetFrame(neighbour, "\x08\x06", arp4, request, mac, noIP, nobody, ip), Heard{From: neighbour}, nil},
		{"ARP counts the sender's own word", ethernetFrame(neighbour, "\x08\x06", arp4, reply, other, ip, mac, ip), Heard{second, a}, nil},
		{"ARP with padding", ethernetFrame(neighbour, "\x08\x06", arp4, reply, mac, ip, mac, ip, strings.Repeat("\x00", 18)), Heard{neighbour, a}, nil},
		{"ARP cut short", ethernetFrame(neighbour, "\x08\x06", arp4, reply, mac, ip, mac), Heard{}, errShort},
		{"ARP whose lengths would overflow", ethernetFrame(neighbour, "\x08\x06", "\x00\x01\x08\x00\xff\xff", reply, mac, ip, mac, ip), Heard{}, errForeign},
		{"reverse ARP's operation", ethernetFrame(neighbour, "\x08\x06", arp4, "\x00\x03", mac, ip, mac, ip), Heard{}, errForeign},
		{"ARP from a group", ethernetFrame(neighbour, "\x08\x06", arp4, reply, "\x01\x00\x00\x00\x00\x07", ip, mac, ip), Heard{}, errForged},
		{"frame from a group", ethernetFrame(group, "\x08\x06", arp4, reply, mac, ip, mac, ip), Heard{}, errForged},
		{"IPv4", ethernetFrame(neighbour, "\x08\x00", strings.Repeat("\x45", 60)), Heard{}, errForeign},
		{"nothing", nil, Heard{}, errShort},
		{"half a head", ethernetFrame(neighbour, "\x08"), Heard{}, errShort},

		{"advertisement", ipv6Frame(255, link, "\x88\x00..\x20\x00\x00\x00"+text6), Heard{neighbour, six}, nil},
		{"advertisement for another's hardware", ipv6Frame(255, link, "\x88\x00..\x20\x00\x00\x00"+text6+"\x02\x01"+other), Heard{second, six}, nil},
		{"advertisement with another option first", ipv6Frame(255, link, "\x88\x00..\x20\x00\x00\x00"+text6+"\x0e\x01......\x02\x01"+other), Heard{second, six}, nil},
		{"advertisement with an option of no length", ipv6Frame(255, link, "\x88\x00..\x20\x00\x00\x00"+text6+"\x02\x00"+other), Heard{neighbour, six}, nil},
		{"advertisement with an option too long", ipv6Frame(255, link, "\x88\x00..\x20\x00\x00\x00"+text6+"\x02\x09"+other), Heard{neighbour, six}, nil},
		{"advertisement cut short", ipv6Frame(255, link, "\x88\x00..\x20\x00\x00\x00"+text6[:8]), Heard{}, errShort},
		{"advertisement through a router", ipv6Frame(64, link, "\x88\x00..\x20\x00\x00\x00"+text6), Heard{}, errForged},
		{"advertisement with a code", ipv6Frame(255, link, "\x88\x01..\x20\x00\x00\x00"+text6), Heard{}, errForged},
		{"solicitation claims its source", ipv6Frame(255, six, "\x87\x00......"+text6+"\x01\x01"+mac), Heard{neighbour, six}, nil},
		{"solicitation without the source's hardware", ipv6Frame(255, six, "\x87\x00......"+text6), Heard{From: neighbour}, nil},
		{"duplicate address detection claims nothing", ipv6Frame(255, nobody6, "\x87\x00......"+text6+"\x01\x01"+mac), Heard{From: neighbour}, nil},
		{"router advertisement", ipv6Frame(255, link, "\x86\x00............"), Heard{From: neighbour}, nil},
		{"echo", ipv6Frame(255, link, "\x80\x00......"), Heard{}, errForeign},
		{"IPv6 cut short", ethernetFrame(neighbour, "\x86\xdd", "\x60"), Heard{}, errShort},
		{"IPv6 length of zero", ethernetFrame(neighbour, "\x86\xdd", "\x60\x00\x00\x00\x00\x00\x3a\xff", strings.Repeat("\x00", 80)), Heard{}, errShort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseFrame(tt.frame)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("parseFrame(%x) = %v, %v, want %v, %v", tt.frame, got, err, tt.want, tt.err)
			}
		})
	}
}

func FuzzParseFrame(f *testing.F) {
	mac := "\x02\x00\x00\x00\x00\x07"
	f.Add(ethernetFrame(neighbour, "\x08\x06", "\x00\x01\x08\x00\x06\x04\x00\x02", mac, "\x0a\x00\x00\x64", mac, "\x0a\x00\x00\x64"))
	f.Add(ethernetFrame(neighbour, "\x08\x06", "\x00\x01\x08\x00\xff\xff\x00\x02", mac, "\x0a\x00\x00\x64", mac, "\x0a\x00\x00\x64"))
	f.Add(ipv6Frame(255, netip.MustParseAddr("fe80::7"), "\x88\x00..\x20\x00\x00\x00"+strings.Repeat("\xfd", 16)+"\x02\x01"+mac))
	f.Add(ipv6Frame(255, netip.MustParseAddr("fe80::7"), "\x87\x00......"+strings.Repeat("\xfd", 16)+"\x01\x01"+mac+"\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.Clone(b)
		h, err := parseFrame(b)
		if !bytes.Equal(b, whole) {
			t.Error("parseFrame wrote to the frame")
		}
		if err != nil {
			if h != (Heard{}) {
				t.Errorf("parseFrame(%x) = %v with error %v, want nothing", b, h, err)
			}
			return
		}
		if h.Claim.IsValid() && h.Claim.IsUnspecified() {
			t.Errorf("parseFrame(%x) claims the unspecified address", b)
		}
		if h.From[0]&1 != 0 {
			t.Errorf("parseFrame(%x) is from a group, %x", b, h.From)
		}
	})
}
