package beat

import (
	"bytes"
	"errors"
	"testing"

	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

const (
	one election.ID = "127.0.0.1:7946"
	two election.ID = "127.0.0.2:7946"
)

func TestWindowTakesEachNumberOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		seqs []uint64
		want []bool
	}{
		{"in order", []uint64{1, 2, 3}, []bool{true, true, true}},
		{"doubled", []uint64{1, 1, 2, 2, 1}, []bool{true, false, true, false, false}},
		{"reordered", []uint64{5, 3, 4, 3}, []bool{true, true, true, false}},
		{"too old", []uint64{100, 36, 37, 37}, []bool{true, false, true, false}},
		{"far ahead", []uint64{1, 1000, 1, 999}, []bool{true, true, false, true}},
	} {
		var w window
		for i, seq := range c.seqs {
			if got := w.take(seq); got != c.want[i] {
				t.Errorf("%s: take(%d) = %v, want %v", c.name, seq, got, c.want[i])
			}
		}
	}
}

// life is one life of a sender, in the tests of sessions.
type life struct{ epoch, seq uint64 }

func (l *life) say(s *session, p proof) (bool, error) {
	l.seq++
	return s.accept(head{epoch: l.epoch, seq: l.seq}, dummyCipher{}, p)
}

func TestLifeIsBelievedWhenItEchoesTheChallenge(t *testing.T) {
	s, a := newSession(), life{epoch: 7}
	if _, err := a.say(&s, proof{challenge: 40}); !errors.Is(err, errEarly) {
		t.Fatalf("before the echo: %v, want early", err)
	}
	if s.proof().echo != 40 {
		t.Errorf("our echo = %d, want 40: the peer must be able to believe us", s.proof().echo)
	}
	if begun, err := a.say(&s, proof{challenge: 40, echo: s.challenge}); !begun || err != nil {
		t.Fatalf("with the echo: begun %v, %v", begun, err)
	}
	if begun, err := a.say(&s, proof{challenge: 40, echo: 0}); begun || err != nil {
		t.Errorf("afterwards: begun %v, %v", begun, err)
	}
}

func TestRecordingOfAnEarlierLifeIsNotBelieved(t *testing.T) {
	s := newSession()
	old, held := life{epoch: 7}, life{epoch: 8}
	first := s.challenge
	if _, err := old.say(&s, proof{challenge: 1, echo: first}); err != nil {
		t.Fatal(err)
	}
	// A datagram of a second life was held back by someone on the way; a third life took
	// part meanwhile.
	second := s.challenge
	young := life{epoch: 9}
	if _, err := young.say(&s, proof{challenge: 2, echo: second}); err != nil {
		t.Fatal(err)
	}
	for name, replay := range map[string]func() (bool, error){
		"old": func() (bool, error) {
			return s.accept(head{epoch: 7, seq: 1}, dummyCipher{}, proof{challenge: 1, echo: first})
		},
		"held back": func() (bool, error) { return held.say(&s, proof{challenge: 1, echo: second}) },
	} {
		if begun, err := replay(); begun || !errors.Is(err, errEarly) {
			t.Errorf("%s: begun %v, %v; want early", name, begun, err)
		}
	}
	if _, err := young.say(&s, proof{challenge: 2, echo: 0}); err != nil || s.proof().echo != 2 {
		t.Errorf("the living one afterwards: %v, echo %d", err, s.proof().echo)
	}
}

func TestSealedIsReadByItsReceiverOnly(t *testing.T) {
	k := keys{[]byte("a secret of the cluster"), "edge"}
	out, err := k.life(one, two, 5)
	if err != nil {
		t.Fatal(err)
	}
	h := head{version: 1, newest: 1, sender: 0, epoch: 5, seq: 9}
	sealed := seal(nil, out, h, proof{challenge: 1, echo: 2}, []byte("payload"))
	try := func(b []byte, secret string, to election.ID) ([]byte, error) {
		b = bytes.Clone(b)
		h, err := parseHead(b, wire.Range{}.Or())
		if err != nil {
			return nil, err
		}
		c, err := keys{[]byte(secret), "edge"}.life(one, to, h.epoch)
		if err != nil {
			t.Fatal(err)
		}
		p, payload, err := open(nil, b, c)
		if err == nil && p != (proof{challenge: 1, echo: 2}) {
			t.Errorf("proof = %v", p)
		}
		return payload, err
	}
	if got, err := try(sealed, "a secret of the cluster", two); err != nil || string(got) != "payload" {
		t.Fatalf("open = %q, %v", got, err)
	}
	if _, err := try(sealed, "a secret of another", two); !errors.Is(err, errStranger) {
		t.Errorf("another secret: %v", err)
	}
	if _, err := try(sealed, "a secret of the cluster", one); !errors.Is(err, errStranger) {
		t.Errorf("another receiver: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := try(bad, "a secret of the cluster", two); err == nil {
			t.Errorf("byte %d changed: accepted", i)
		}
	}
}

type dummyCipher struct{}

func (dummyCipher) NonceSize() int                         { return 12 }
func (dummyCipher) Overhead() int                          { return 16 }
func (dummyCipher) Seal(d, _, p, _ []byte) []byte          { return append(d, p...) }
func (dummyCipher) Open(d, _, c, _ []byte) ([]byte, error) { return append(d, c...), nil }

func TestSealAndOpenAllocateNothing(t *testing.T) {
	out, err := keys{[]byte("a secret of the cluster"), "edge"}.life(one, two, 5)
	if err != nil {
		t.Fatal(err)
	}
	buf, room, payload := make([]byte, 0, 2048), make([]byte, 0, 2048), make([]byte, 600)
	h := head{1, 1, 0, 1, 5, 0}
	if n := testing.AllocsPerRun(1000, func() {
		h.seq++
		buf = seal(buf, out, h, proof{challenge: 1, echo: 2}, payload)
		if _, _, err := open(room, buf, out); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkSealOpen(b *testing.B) {
	out, err := keys{[]byte("a secret of the cluster"), "edge"}.life(one, two, 5)
	if err != nil {
		b.Fatal(err)
	}
	buf, room, payload := make([]byte, 0, 2048), make([]byte, 0, 2048), make([]byte, 300)
	h := head{1, 1, 0, 1, 5, 0}
	b.ReportAllocs()
	for b.Loop() {
		h.seq++
		buf = seal(buf, out, h, proof{challenge: 1, echo: 2}, payload)
		if _, _, err := open(room, buf, out); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzReceive(f *testing.F) {
	k := keys{[]byte("a secret of the cluster"), "edge"}
	out, err := k.life(one, two, 5)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seal(nil, out, head{1, 1, 0, 1, 5, 1}, proof{challenge: 1, echo: 2}, []byte("payload")))
	f.Add([]byte{})
	f.Add([]byte{wire.Newest, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHead(b, wire.Range{}.Or())
		if err != nil {
			return
		}
		c, err := k.life(one, two, h.epoch)
		if err != nil {
			t.Fatal(err)
		}
		if _, payload, err := open(nil, b, c); err == nil && len(payload) > maxDatagram {
			t.Errorf("payload of %d bytes", len(payload))
		}
	})
}
