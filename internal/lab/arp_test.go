package lab

import (
	"net"
	"net/netip"
	"testing"
)

func TestARPRequestIsReadBack(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	from, who := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.1")
	f, ok := parseARP(arpRequest(mac, from, who))
	if !ok {
		t.Fatal("parseARP does not know an ARP request")
	}
	if f.reply || f.senderMAC.String() != mac.String() || f.senderIP != from || f.targetIP != who || f.gratuitous() {
		t.Errorf("parseARP() = %+v", f)
	}
	if f, _ := parseARP(arpRequest(mac, who, who)); !f.gratuitous() {
		t.Error("a frame with one address for both is not called gratuitous")
	}
}

func FuzzParseARP(f *testing.F) {
	f.Add(arpRequest(net.HardwareAddr{2, 0, 0, 0, 0, 9}, netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.1")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if f, ok := parseARP(b); ok && (len(f.senderMAC) != 6 || !f.senderIP.Is4() || !f.targetIP.Is4()) {
			t.Errorf("parseARP(%x) = %+v", b, f)
		}
	})
}
