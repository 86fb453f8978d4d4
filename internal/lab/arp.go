package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// An arpFrame is an ARP packet for IPv4 over Ethernet (RFC 826).
type arpFrame struct {
	reply              bool
	senderMAC          net.HardwareAddr
	senderIP, targetIP netip.Addr
}

const (
	ethHeaderLen = 14
	arpLen       = 28
	etherTypeARP = 0x0806
)

// gratuitous reports whether the frame announces an address rather than asks or answers.
func (f arpFrame) gratuitous() bool { return f.senderIP == f.targetIP }

// arpRequest returns a broadcast Ethernet frame that asks who has an address.
func arpRequest(mac net.HardwareAddr, from, who netip.Addr) []byte {
	b := make([]byte, 0, ethHeaderLen+arpLen)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = append(b, mac...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	b = append(b, mac...)
	b = append(b, from.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, who.AsSlice()...)
}

// parseARP reads an Ethernet frame; ok is false for all that is not ARP for IPv4.
func parseARP(b []byte) (f arpFrame, ok bool) {
	if len(b) < ethHeaderLen+arpLen || binary.BigEndian.Uint16(b[12:]) != etherTypeARP {
		return f, false
	}
	p := b[ethHeaderLen:]
	if [6]byte(p[:6]) != [6]byte{0, 1, 0x08, 0, 6, 4} {
		return f, false
	}
	switch binary.BigEndian.Uint16(p[6:]) {
	case 1:
	case 2:
		f.reply = true
	default:
		return f, false
	}
	f.senderMAC = net.HardwareAddr(append([]byte(nil), p[8:14]...))
	f.senderIP = netip.AddrFrom4([4]byte(p[14:18]))
	f.targetIP = netip.AddrFrom4([4]byte(p[24:28]))
	return f, true
}
