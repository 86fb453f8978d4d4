package vip

import (
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

// arpAnnouncement returns the two frames of a gratuitous ARP (RFC 5227, 3): Linux always
// believes the request form; the reply form, which some other systems want, only if the
// target's hardware address is the sender's.
func arpAnnouncement(mac [6]byte, a netip.Addr) ([][]byte, error) {
	request, err := arpFrame(arp.OperationRequest, mac, a, [6]byte{}, a)
	if err != nil {
		return nil, err
	}
	reply, err := arpFrame(arp.OperationReply, mac, a, mac, a)
	if err != nil {
		return nil, err
	}
	return [][]byte{request, reply}, nil
}

// arpProbe returns the frame that asks for a without saying who asks (RFC 5227, 2.1.1):
// no neighbour's table is changed by it.
func arpProbe(mac [6]byte, a netip.Addr) ([]byte, error) {
	return arpFrame(arp.OperationRequest, mac, netip.IPv4Unspecified(), [6]byte{}, a)
}

func arpFrame(op arp.Operation, mac [6]byte, sender netip.Addr, target [6]byte, asked netip.Addr) ([]byte, error) {
	p, err := arp.NewPacket(op, mac[:], sender, target[:], asked)
	if err != nil {
		return nil, err
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	f := ethernet.Frame{
		Destination: ethernet.Broadcast, Source: mac[:],
		EtherType: ethernet.EtherTypeARP, Payload: payload,
	}
	return f.MarshalBinary()
}
