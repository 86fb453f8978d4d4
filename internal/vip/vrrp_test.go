package vip

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// advert makes an IPv4 frame of protocol 112 with the body.
func advert(body ...byte) []byte {
	b := make([]byte, ethernetHead, 128)
	b[12], b[13] = 0x08, 0
	ip := []byte{0x45, 0, 0, byte(20 + len(body)), 0, 0, 0, 0, 255, vrrp, 0, 0, 10, 0, 0, 9, 224, 0, 0, 18}
	return append(append(b, ip...), body...)
}

func TestSpeakersAreTold(t *testing.T) {
	from := netip.MustParseAddr("10.0.0.9")
	v6 := make([]byte, ethernetHead+ipv6Head, 128)
	v6[ethernetHead], v6[ethernetHead+6] = 0x60, vrrp
	v6[ethernetHead+8], v6[ethernetHead+23] = 0xfe, 9
	v6 = append(v6, 0x31, 7, 100, 1, 0, 100, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
	for _, c := range []struct {
		name  string
		frame []byte
		want  *Speaker
	}{
		{"keepalived", advert(0x21, 51, 100, 1, 0, 1, 0, 0, 10, 0, 0, 100, 1, 2, 3, 4, 5, 6, 7, 8),
			&Speaker{from, "VRRP 2", 51, 100, []netip.Addr{netip.MustParseAddr("10.0.0.100")}}},
		{"VRRP 3 of IPv6", v6, &Speaker{netip.MustParseAddr("fe00::9"), "VRRP 3", 7, 100, []netip.Addr{netip.MustParseAddr("fe80::1")}}},
		{"ucarp", advert(append([]byte{0x21, 1, 0, 7, 0, 1, 0, 0}, make([]byte, 28)...)...), &Speaker{from, "CARP", 1, 0, nil}},
		{"an address that was cut off", advert(0x31, 51, 100, 2, 0, 1, 0, 0, 10, 0, 0, 100, 10),
			&Speaker{from, "VRRP 3", 51, 100, []netip.Addr{netip.MustParseAddr("10.0.0.100")}}},
		{"cut short", advert(0x21, 51, 100), nil},
		{"no advertisement", advert(0x22, 51, 100, 0, 0, 1, 0, 0), nil},
		{"a version that there is not", advert(0x91, 51, 100, 0, 0, 1, 0, 0), nil},
		{"another protocol", append(advert(0x21, 51, 100, 0, 0, 1, 0, 0)[:ethernetHead+9], append([]byte{6}, advert(0x21, 51, 100, 0, 0, 1, 0, 0)[ethernetHead+10:]...)...), nil},
		{"nothing", nil, nil},
	} {
		got, ok := parseVRRP(c.frame)
		if ok != (c.want != nil) {
			t.Errorf("%s: %v, %v", c.name, got, ok)
		} else if ok {
			if d := cmp.Diff(*c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, d)
			}
		}
	}
}

func FuzzVRRP(f *testing.F) {
	f.Add(advert(0x21, 51, 100, 1, 0, 1, 0, 0, 10, 0, 0, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseVRRP(b); ok {
			_ = s.String()
		}
	})
}
