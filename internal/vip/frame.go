package vip

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Received frames are parsed here and not with the libraries that build the ones we
// send: mdlayher/arp's parser panics on lengths that overflow, and whatever a stranger
// puts on the LAN comes this way.

// Why a frame tells nothing.
var (
	errShort   = errors.New("frame is too short")
	errForeign = errors.New("frame is not ARP for IPv4 over Ethernet, nor neighbour discovery")
	errForged  = errors.New("frame was routed, or names a group as a host")
)

const (
	ethernetHead = 14
	ipv6Head     = 40

	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	icmpv6        = 58
	solicitation  = 135
	advertisement = 136
	redirect      = 137
	routerSolicit = 133

	optionSource = 1 // source link-layer address
	optionTarget = 2 // target link-layer address
)

// parseFrame returns what an Ethernet frame tells. It never fails for a frame of ARP or
// neighbour discovery that a neighbour's kernel would believe; checksums are not looked
// at, because a watcher may believe more than a kernel does.
func parseFrame(b []byte) (Heard, error) {
	if len(b) < ethernetHead {
		return Heard{}, errShort
	}
	from := [6]byte(b[6:12])
	if from[0]&1 != 0 {
		return Heard{}, errForged
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case etherARP:
		return parseARP(b[ethernetHead:])
	case etherIPv6:
		return parseND(from, b[ethernetHead:])
	}
	return Heard{}, errForeign
}

// parseARP reads an ARP packet (RFC 826). Whoever names an address as the sender's
// claims it, in a request as well as in a reply: that is what neighbours learn from.
func parseARP(b []byte) (Heard, error) {
	if len(b) < 28 {
		return Heard{}, errShort
	}
	const ethernetIPv4 = "\x00\x01\x08\x00\x06\x04"
	if string(b[:6]) != ethernetIPv4 {
		return Heard{}, errForeign
	}
	if op := binary.BigEndian.Uint16(b[6:]); op != 1 && op != 2 {
		return Heard{}, errForeign
	}
	h := Heard{From: [6]byte(b[8:14])}
	if h.From[0]&1 != 0 {
		return Heard{}, errForged
	}
	// RFC 5227: a probe names no sender, and claims nothing.
	if a := netip.AddrFrom4([4]byte(b[14:18])); !a.IsUnspecified() {
		h.Claim = a
	}
	return h, nil
}

// parseND reads a message of neighbour discovery (RFC 4861). An advertisement claims its
// target; a solicitation claims its source, if it says the source's hardware address.
func parseND(from [6]byte, b []byte) (Heard, error) {
	if len(b) < ipv6Head+8 {
		return Heard{}, errShort
	}
	if b[0]>>4 != 6 || b[6] != icmpv6 {
		return Heard{}, errForeign
	}
	// RFC 4861, 7.1: a hop limit below 255 means that a router let it through.
	if b[7] != 255 || b[ipv6Head+1] != 0 {
		return Heard{}, errForged
	}
	source := netip.AddrFrom16([16]byte(b[8:24]))
	body := b[ipv6Head:]
	if n := int(binary.BigEndian.Uint16(b[4:])); n < len(body) {
		body = body[:n] // the rest is Ethernet's padding
	}
	if len(body) < 8 {
		return Heard{}, errShort
	}
	switch kind := body[0]; {
	case kind == advertisement:
		if len(body) < 24 {
			return Heard{}, errShort
		}
		h := Heard{From: from, Claim: netip.AddrFrom16([16]byte(body[8:24]))}
		if mac, ok := option(body[24:], optionTarget); ok {
			h.From = mac
		}
		if h.From[0]&1 != 0 || h.Claim.IsMulticast() || h.Claim.IsUnspecified() {
			return Heard{}, errForged
		}
		return h, nil
	case kind == solicitation:
		if len(body) < 24 {
			return Heard{}, errShort
		}
		h := Heard{From: from}
		if mac, ok := option(body[24:], optionSource); ok && !source.IsUnspecified() {
			h.From, h.Claim = mac, source
		}
		if h.From[0]&1 != 0 || source.IsMulticast() {
			return Heard{}, errForged
		}
		return h, nil
	case kind >= routerSolicit && kind <= redirect:
		return Heard{From: from}, nil
	}
	return Heard{}, errForeign
}

// option returns the hardware address in the first option of a kind.
func option(b []byte, kind byte) (mac [6]byte, ok bool) {
	for len(b) >= 8 {
		n := int(b[1]) * 8 // RFC 4861, 4.6: in units of eight bytes, zero is invalid
		if n == 0 || n > len(b) {
			return mac, false
		}
		if b[0] == kind {
			return [6]byte(b[2:8]), true
		}
		b = b[n:]
	}
	return mac, false
}
