package engine

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// An address that is away for a moment loses datagrams, and ends no connection.
func TestADatagramFromAnAddressThatIsAwayIsLost(t *testing.T) {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var socket quic.OOBCapablePacketConn = mayLose(u).(lossy)
	to := u.LocalAddr().(*net.UDPAddr)
	away := (&ipv4.ControlMessage{Src: net.IPv4(203, 0, 113, 9)}).Marshal() // RFC 5737
	if _, _, err := u.WriteMsgUDP([]byte("x"), away, to); err == nil {
		t.Fatal("the kernel sends from an address that is not here")
	}
	if n, oobn, err := socket.WriteMsgUDP([]byte("x"), away, to); n != 1 || oobn != len(away) || err != nil {
		t.Errorf("sent from an address that is away: %d, %d, %v", n, oobn, err)
	}
	if _, _, err := socket.WriteMsgUDP(make([]byte, 1<<16), nil, to); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a datagram that is too long: %v", err)
	}
	if n, _, err := socket.WriteMsgUDP([]byte("here"), nil, to); n != 4 || err != nil {
		t.Errorf("a datagram: %d, %v", n, err)
	}
	b := make([]byte, 10)
	if n, _, err := socket.ReadFrom(b); err != nil || string(b[:n]) != "here" {
		t.Errorf("what came is %q, %v, want the one that was sent", b[:n], err)
	}
}
