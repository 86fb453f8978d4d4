package vip

import (
	"fmt"
	"net/netip"
	"strings"
)

// A Speaker is another program of high availability on the link: keepalived or another
// that speaks VRRP (RFC 5798, 3768), or one of CARP, such as ucarp.
type Speaker struct {
	From      netip.Addr
	Protocol  string // "VRRP 2", "VRRP 3" or "CARP"
	Group     uint8  // virtual router or host id
	Priority  uint8  // of VRRP; 255 owns the address, 0 leaves
	Addresses []netip.Addr
}

// Claims reports whether the speaker says that it has the address.
func (s Speaker) Claims(a netip.Addr) bool {
	for _, b := range s.Addresses {
		if a == b {
			return true
		}
	}
	return false
}

func (s Speaker) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s, group %d", s.Protocol, s.From, s.Group)
	if s.Protocol != "CARP" {
		fmt.Fprintf(&b, ", priority %d", s.Priority)
	}
	if len(s.Addresses) > 0 {
		fmt.Fprintf(&b, ", addresses %v", s.Addresses)
	}
	return b.String()
}

const (
	etherIPv4 = 0x0800
	vrrp      = 112 // protocol number, CARP's too
)

// parseVRRP reads an Ethernet frame that carries VRRP or CARP. What is longer than the
// buffer that it was read into tells fewer addresses.
func parseVRRP(b []byte) (Speaker, bool) {
	if len(b) < ethernetHead+1 {
		return Speaker{}, false
	}
	b = b[ethernetHead:]
	var s Speaker
	var body []byte
	switch {
	case b[0]>>4 == 4 && len(b) >= 20:
		head := int(b[0]&15) * 4
		if head < 20 || len(b) < head || b[9] != vrrp {
			return Speaker{}, false
		}
		s.From, body = netip.AddrFrom4([4]byte(b[12:16])), b[head:]
	case b[0]>>4 == 6 && len(b) >= ipv6Head && b[6] == vrrp:
		s.From, body = netip.AddrFrom16([16]byte(b[8:24])), b[ipv6Head:]
	default:
		return Speaker{}, false
	}
	if len(body) < 8 || body[0]&15 != 1 {
		return Speaker{}, false
	}
	version, count := body[0]>>4, int(body[3])
	s.Group, s.Priority = body[1], body[2]
	switch {
	case version == 2 && len(body) >= 36 && count == 7:
		// CARP has the length of its authentication there, always 7 words. A VRRP with seven
		// addresses looks the same, and is the rarer of the two.
		s.Protocol, s.Priority = "CARP", 0
		return s, true
	case version == 2 || version == 3:
		s.Protocol = fmt.Sprintf("VRRP %d", version)
	default:
		return Speaker{}, false
	}
	size := s.From.BitLen() / 8
	for rest := body[8:]; count > 0 && len(rest) >= size; count-- {
		a, _ := netip.AddrFromSlice(rest[:size])
		s.Addresses = append(s.Addresses, a)
		rest = rest[size:]
	}
	return s, true
}
