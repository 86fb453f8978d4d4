package engine

import (
	"errors"
	"net"
	"syscall"
)

// A lossy socket takes datagrams that the kernel does not send at this moment for lost ones,
// which QUIC sends again. To quic-go they would be the end of the connection: but an address may
// be away for an instant while it moves between nodes, a firewall or our own fence may be shut,
// a queue may be full. Connections of TCP outlive that, too.
type lossy struct{ *net.UDPConn }

// WriteMsgUDP implements quic.OOBCapablePacketConn.
func (s lossy) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = s.UDPConn.WriteMsgUDP(b, oob, to)
	if err != nil && passing(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// passing reports whether a datagram that could not be sent may be sent a moment later. One
// that is too long may not, which tells quic-go how long they can be.
func passing(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.EINVAL,
		syscall.EPERM, syscall.ENETDOWN, syscall.ENOBUFS, syscall.EAGAIN, syscall.ECONNREFUSED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// mayLose makes a socket lossy, if it is one of UDP.
func mayLose(c net.PacketConn) net.PacketConn {
	if u, ok := c.(*net.UDPConn); ok {
		return lossy{u}
	}
	return c
}
