package beat

import (
	"bytes"
	"io"
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
		if _, err := m.answer(here); err == nil {
			t.Errorf("%x was answered", b)
		}
	})
}

// A node may be behind a translation of addresses, and calls from where no voter is.
func TestOneStrangerLeavesRoomForOthers(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	to, err := Address(v[0])
	if err != nil {
		t.Fatal(err)
	}
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from + ":0"))}
		c, err := d.DialContext(t.Context(), "tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	k := (*a.ring.Load())[0]
	for a.Dropped()["busy"] == 0 {
		dial("127.11.0.2") // and says nothing
	}
	c, fresh := dial("127.11.0.3"), [nonceOfCall]byte{2}
	call, err := k.call(1, mark(v[1]), fresh, v[0])
	if err != nil {
		t.Fatal(err)
	}
	want, err := k.answer(1, fresh, v[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	_, _ = c.Write(call)
	got := make([]byte, answerSize)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a node behind another address was not answered: %x, %v", got, err)
	}
}

// Whoever recorded a call on the wire gets nothing for playing it again: no answer, no place.
func TestRecordedCallCostsNothing(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	b, _ := join(t, v[1], v, secret)
	lined(t, b, v[0])
	lined(t, a, v[1])
	to, err := Address(v[0])
	if err != nil {
		t.Fatal(err)
	}
	k := (*a.ring.Load())[0]
	// play sends a call with a nonce, and returns the connection with what was answered.
	play := func(nonce [nonceOfCall]byte) (net.Conn, []byte) {
		t.Helper()
		call, err := k.call(1, mark(v[1]), nonce, v[0])
		if err != nil {
			t.Fatal(err)
		}
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.11.0.4:0"))}
		c, err := d.DialContext(t.Context(), "tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(limit))
		_, _ = c.Write(call)
		got := make([]byte, answerSize)
		n, _ := io.ReadFull(c, got)
		return c, got[:n]
	}
	nonce := b.stamp.next(b.epoch, b.Now())
	if _, got := play(nonce); len(got) != answerSize {
		t.Fatalf("a call of now was answered with %x", got)
	}
	for range 20 {
		if _, got := play(nonce); len(got) > 0 {
			t.Fatalf("a call that was played again was answered with %x", got)
		}
	}
	if d := a.Dropped(); d["recorded"] != 20 || d["busy"] > 0 || d["lifeline"] > 0 {
		t.Errorf("of 20 recordings %v were counted", d)
	}
	// One of an earlier life, or of long ago, is answered: whoever is not known yet may have to
	// be. Its place is given back.
	for what, nonce := range map[string][nonceOfCall]byte{
		"an earlier life": b.stamp.next(b.epoch+2, b.Now()),
		"a minute ago":    new(stamp).next(b.epoch, b.Now().Add(-time.Minute)),
	} {
		c, got := play(nonce)
		if len(got) != answerSize {
			t.Errorf("%s: answered with %x", what, got)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: its end is %v, want that it is hung up", what, err)
		}
	}
	lined(t, b, v[0])
}

func TestNoncesOfCallsAreUsedOnce(t *testing.T) {
	var s stamp
	var c calls
	for i := range 3 * maxCalls {
		if !c.take(s.next(7, clock.Instant(i/2))) {
			t.Fatalf("nonce %d was there before", i)
		}
	}
	if len(c.seen) != maxCalls {
		t.Errorf("%d are remembered, want %d", len(c.seen), maxCalls)
	}
	var next calls // of the process after an upgrade
	next.recall(c.all())
	if len(next.seen) != maxCalls || next.take(c.ring[0]) || next.take(c.ring[maxCalls-1]) || !next.take(s.next(7, 0)) {
		t.Errorf("the next process remembers %d", len(next.seen))
	}
}

func TestPlacesAreGivenBack(t *testing.T) {
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var s places
	taken := 0
	for s.take(one, false) {
		taken++
	}
	if taken != maxOtherLifelinesOf || !s.take(two, false) {
		t.Fatalf("one stranger has %d places, want %d and some for another", taken, maxOtherLifelinesOf)
	}
	s.leave(one, false)
	if !s.take(one, false) {
		t.Error("a place that was given back is not free")
	}
	for range taken {
		s.leave(one, false)
	}
	s.leave(two, false)
	if len(s.of) > 0 || s.others != 0 {
		t.Errorf("all gave theirs back, and %d of %d addresses are left", s.others, len(s.of))
	}
	for i := range maxOtherLifelines {
		if !s.take(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), false) {
			t.Fatalf("no place for stranger %d", i)
		}
	}
	if s.take(netip.MustParseAddr("198.51.100.1"), false) || !s.take(one, true) {
		t.Error("strangers have more places than there are, or take those of voters")
	}
}
