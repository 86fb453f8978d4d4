package vip

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

// advertisementFrame returns an unsolicited neighbour advertisement for a (RFC 4861,
// 7.2.6) to all nodes, with the override flag: who has another address in its table
// replaces it.
func advertisementFrame(mac [6]byte, a netip.Addr) ([]byte, error) {
	return ndFrame(mac, a, netip.IPv6LinkLocalAllNodes(), &ndp.NeighborAdvertisement{
		Override:      true,
		TargetAddress: a,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac[:]}},
	})
}

// solicitationFrame returns a neighbour solicitation for a from source, the interface's
// link-local address. Without one it asks as duplicate address detection does (RFC 4862,
// 5.4.2), and the answer goes to all nodes.
func solicitationFrame(mac [6]byte, source, a netip.Addr) ([]byte, error) {
	to, err := ndp.SolicitedNodeMulticast(a)
	if err != nil {
		return nil, err
	}
	m := &ndp.NeighborSolicitation{TargetAddress: a}
	if source.IsValid() {
		m.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac[:]}}
	} else {
		source = netip.IPv6Unspecified()
	}
	return ndFrame(mac, source, to, m)
}

// ndFrame wraps a message in IPv6 and Ethernet, to a group.
func ndFrame(mac [6]byte, source, group netip.Addr, m ndp.Message) ([]byte, error) {
	message, err := ndp.MarshalMessageChecksum(m, source, group)
	if err != nil {
		return nil, err
	}
	from, to := source.As16(), group.As16()
	p := make([]byte, 8, ipv6Head+len(message))
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(len(message)))
	p[6], p[7] = icmpv6, 255
	p = append(p, from[:]...)
	p = append(p, to[:]...)
	p = append(p, message...)
	f := ethernet.Frame{
		// RFC 2464, 7: a group's hardware address ends with its last four bytes.
		Destination: []byte{0x33, 0x33, to[12], to[13], to[14], to[15]}, Source: mac[:],
		EtherType: ethernet.EtherTypeIPv6, Payload: p,
	}
	return f.MarshalBinary()
}
