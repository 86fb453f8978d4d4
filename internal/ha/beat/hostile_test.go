package beat

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/ha/wire"
)

func TestCallersWhoSayNothingDoNotKeepVotersOut(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	to, err := Address(v[0])
	if err != nil {
		t.Fatal(err)
	}
	from := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.11.0.2:0"))}
	for a.Dropped()["busy"] == 0 {
		c, err := from.DialContext(t.Context(), "tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	b, _ := join(t, v[1], v, secret)
	lined(t, b, v[0])
}

// FuzzForgedDatagram: whatever comes without the key changes nothing and is counted.
func FuzzForgedDatagram(f *testing.F) {
	v := []string{"127.9.1.1:7946", "127.9.1.2:7946"}
	m := &Mesh{Config: Config{Cluster: "test", Self: ha.ID(netip.MustParseAddrPort(v[0])), Heartbeat: time.Millisecond,
		Now: clock.Now, Log: slog.New(slog.DiscardHandler), Paths: []Path{{}}}, events: make(chan ha.MeshEvent, eventRoom)}
	p, err := m.newPeer(ha.ID(netip.MustParseAddrPort(v[1])))
	if err != nil {
		f.Fatal(err)
	}
	m.self, m.peers = mark(m.Self), []*peer{nil, p}
	if err := m.SetSecrets([]string{secret}); err != nil {
		f.Fatal(err)
	}
	other, err := (keys{[]byte("the secret of another"), "test"}).life(p.id, m.Self, 7)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seal(nil, other, head{1, 1, p.mark, m.self, 7, 1}, proof{challenge: 1, echo: p.session.challenge}, []byte("payload")))
	f.Add([]byte{wire.Newest, wire.Newest, p.mark, m.self})
	f.Add(bytes.Repeat([]byte{wire.Newest}, maxDatagram+1))
	before, room := p.session, make([]byte, 0, maxDatagram)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := m.receive(b, 0, netip.MustParseAddrPort("127.0.0.1:1"), room); err == nil {
			t.Fatalf("%x was believed", b)
		}
		if len(m.events) > 0 || p.session != before || p.alive {
			t.Errorf("%x changed something", b)
		}
	})
}

// FuzzCall: whatever is sent to the lifeline's port without the key is not answered.
func FuzzCall(f *testing.F) {
	m := &Mesh{Config: Config{Cluster: "test", Self: one, Now: clock.Now}, peers: []*peer{nil, {id: two, mark: mark(two)}}}
	if err := m.SetSecrets([]string{secret}); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{wire.Newest, mark(two)})
	f.Add(bytes.Repeat([]byte{wire.Newest}, callSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		here, there := net.Pipe()
		defer here.Close()
		go func() { // ends with the pipe
			_, _ = there.Write(b)
			there.Close()
		}()
		if err := m.answer(here); err == nil {
			t.Errorf("%x was answered", b)
		}
	})
}
