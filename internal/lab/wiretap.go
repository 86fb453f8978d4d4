package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
)

// A datagram is one that was recorded on the wire, with the addresses it bore.
type datagram struct {
	mac      net.HardwareAddr // of the host that it went to
	from, to netip.AddrPort
	payload  []byte
}

// A recording is what went over a host's cable for a while: datagrams of the ports of a
// cluster, and the first bytes that were sent on each TCP connection to the lifeline's port.
type recording struct {
	datagrams []datagram
	calls     map[netip.AddrPort][][]byte // by who was called
}

const (
	ipv4HeaderLen = 20
	udpHeaderLen  = 8
	etherTypeIPv4 = 0x0800
	everyProtocol = 0x0003 // ETH_P_ALL
	protocolTCP   = 6
	protocolUDP   = 17
)

// record listens on a host's cable while f runs, and for d after it.
func (h *Host) record(ctx context.Context, d time.Duration, f func() error) (recording, error) {
	r := recording{calls: map[netip.AddrPort][][]byte{}}
	var conn *packet.Conn
	if err := h.Do(func() error {
		ifi, err := net.InterfaceByName(hostInterface)
		if err != nil {
			return err
		}
		conn, err = packet.Listen(ifi, packet.Raw, everyProtocol, nil)
		return err
	}); err != nil {
		return r, fmt.Errorf("record on %s: %w", h.Name, err)
	}
	defer conn.Close()
	ended := make(chan error, 1)
	go func() { // ends with the deadline
		buf := make([]byte, 64<<10)
		for {
			n, _, err := conn.ReadFrom(buf)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				ended <- nil
				return
			case err != nil:
				ended <- err
				return
			}
			r.take(buf[:n])
		}
	}()
	err := f()
	if err == nil {
		err = pause(ctx, d)
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	if listened := <-ended; err == nil {
		err = listened
	}
	return r, err
}

// take notes a frame, if it is of a cluster.
func (r *recording) take(b []byte) {
	if len(b) < ethHeaderLen+ipv4HeaderLen || binary.BigEndian.Uint16(b[12:]) != etherTypeIPv4 {
		return
	}
	ip := b[ethHeaderLen:]
	head, size := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if size > len(ip) || size < head+udpHeaderLen {
		return
	}
	body := ip[head:size]
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(body))
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(body[2:]))
	if to.Port() != joinPort && to.Port() != beatPort {
		return
	}
	switch ip[9] {
	case protocolUDP:
		r.datagrams = append(r.datagrams, datagram{append(net.HardwareAddr(nil), b[:6]...), from, to, append([]byte(nil), body[udpHeaderLen:]...)})
	case protocolTCP:
		if len(body) > 12 {
			if data := int(body[12]>>4) * 4; to.Port() == beatPort && data < len(body) {
				r.calls[to] = append(r.calls[to], append([]byte(nil), body[data:]...))
			}
		}
	}
}

// between returns what was recorded for a port of a host.
func (r *recording) between(to netip.AddrPort) (out []datagram) {
	for _, d := range r.datagrams {
		if d.to == to {
			out = append(out, d)
		}
	}
	return out
}

// frame returns the datagram with another payload as an Ethernet frame of a host, with the
// addresses that it bore: a forgery.
func (d datagram) frame(src net.HardwareAddr, payload []byte) []byte {
	b := make([]byte, 0, ethHeaderLen+ipv4HeaderLen+udpHeaderLen+len(payload))
	b = append(append(b, d.mac...), src...)
	b = binary.BigEndian.AppendUint16(b, etherTypeIPv4)
	ip := make([]byte, ipv4HeaderLen)
	ip[0], ip[8], ip[9] = 0x45, 64, protocolUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(ipv4HeaderLen+udpHeaderLen+len(payload)))
	copy(ip[12:], d.from.Addr().AsSlice())
	copy(ip[16:], d.to.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	b = append(b, ip...)
	b = binary.BigEndian.AppendUint16(b, d.from.Port())
	b = binary.BigEndian.AppendUint16(b, d.to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(udpHeaderLen+len(payload)))
	b = append(b, 0, 0) // no checksum (RFC 768)
	return append(b, payload...)
}

// checksum is that of an IPv4 head (RFC 1071).
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
