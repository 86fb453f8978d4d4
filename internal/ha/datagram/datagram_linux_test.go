package datagram

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestDatagramsGoAndComeWithTheirAddresses(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		a, b := open(t, at), open(t, at)
		to := a.LocalAddr().(*net.UDPAddr).AddrPort()
		raw, err := b.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { err = Send(int(fd), []byte("hello"), EndpointOf(to)) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatalf("Send to %v: %v", to, err)
		}
		text, from := receive(t, a)
		if text != "hello" || from.String() != b.LocalAddr().String() {
			t.Errorf("received %q from %v, want hello from %v", text, from, b.LocalAddr())
		}
	}
}

func TestNothingThatWaitsIsNotAnEmptyDatagram(t *testing.T) {
	c := open(t, "127.0.0.1:0")
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var from Endpoint
	n := 0
	if err := raw.Control(func(fd uintptr) { n = Receive(int(fd), make([]byte, 10), &from) }); err != nil || n != -1 {
		t.Errorf("Receive = %d, %v, want -1", n, err)
	}
}

func TestDatagramThatIsTooLargeIsAnError(t *testing.T) {
	c := open(t, "127.0.0.1:0")
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	to := EndpointOf(c.LocalAddr().(*net.UDPAddr).AddrPort())
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = Send(int(fd), make([]byte, 70_000), to) }); err != nil || sent == nil {
		t.Errorf("Send of 70,000 bytes: %v, want that it is too long", sent)
	}
}

func TestEndpointHasItsAddress(t *testing.T) {
	for _, s := range []string{"192.0.2.1:7946", "[2001:db8::1]:7946"} {
		a := netip.MustParseAddrPort(s)
		if got := EndpointOf(a).Addr(); got != a {
			t.Errorf("EndpointOf(%v).Addr() = %v", a, got)
		}
	}
}

func open(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// receive waits for a datagram.
func receive(t *testing.T, c *net.UDPConn) (text string, from netip.AddrPort) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, e := make([]byte, 100), new(Endpoint)
	if err := raw.Read(func(fd uintptr) bool {
		n := Receive(int(fd), b, e)
		text = string(b[:max(n, 0)])
		return n >= 0
	}); err != nil {
		t.Fatal(err)
	}
	return text, e.Addr()
}
