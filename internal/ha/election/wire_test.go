package election

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"proxyd/internal/ha/wire"
)

func TestMsgSurvivesTheWire(t *testing.T) {
	for _, msg := range []Msg{
		{},
		{Kind: Ask, Term: 7, Sent: 123456789, Info: Info{Holds: true, Ill: 7, Hears: true, Held: time.Hour, Prefer: 1}},
		{Kind: Refuse, Term: 1<<63 - 1, To: "[2001:db8::1]:7946", Info: Info{Quiet: true, Deaf: true}},
		{Kind: Waive, Term: 9, To: ID(strings.Repeat("x", 255)), Reason: Isolated, Chosen: true},
	} {
		b := AppendMsg([]byte("before"), 1, msg)
		got, err := ParseMsg(b[len("before"):], v1)
		if err != nil || got != msg {
			t.Errorf("ParseMsg(AppendMsg(%+v)) = %+v, %v", msg, got, err)
		}
		if len(b)-len("before") > MaxMsgSize {
			t.Errorf("%d bytes, more than MaxMsgSize", len(b)-len("before"))
		}
	}
}

var v1 = wire.Range{Oldest: 1, Newest: 1}

func TestWhatALaterReleaseAddsIsSkipped(t *testing.T) {
	want := Msg{Kind: Waive, Term: 1, To: "b", Reason: Planned}
	b := AppendMsg(nil, 1, want)
	b[2] = 200   // a reason that is not known
	b[3] |= 0x40 // a flag
	b = append(b, "and a field"...)
	if got, err := ParseMsg(b, v1); err != nil || got != want {
		t.Errorf("ParseMsg = %+v, %v, want %+v", got, err, want)
	}
	if _, err := ParseMsg(AppendMsg(nil, 2, want), wire.Range{Oldest: 1, Newest: 2}); err != nil {
		t.Errorf("a version that both know: %v", err)
	}
}

func TestParseMsgRefuses(t *testing.T) {
	good := AppendMsg(nil, 1, Msg{Kind: Waive, Term: 1, To: "b"})
	change := func(i int, to byte) []byte {
		b := bytes.Clone(good)
		b[i] = to
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"another version": change(0, 2),
		"unknown kind":    change(1, 4),
		"term too high":   change(6, 0x80),
		"negative time":   change(14, 0x80),
		"negative hold":   change(22, 0x80),
		"cut short":       good[:len(good)-1],
		"head cut short":  good[:wireHeadSize-1],
	} {
		if _, err := ParseMsg(b, v1); !errors.Is(err, ErrMsg) {
			t.Errorf("%s: ParseMsg = %v, want ErrMsg", name, err)
		}
	}
}

func FuzzParseMsg(f *testing.F) {
	f.Add(AppendMsg(nil, 1, Msg{Kind: Waive, Term: 1, To: "b", Reason: Planned}))
	f.Add(AppendMsg(nil, 1, Msg{Kind: Ask, Sent: 1, Info: Info{Holds: true}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := ParseMsg(b, v1)
		if err != nil {
			return
		}
		if again, err := ParseMsg(AppendMsg(nil, 1, msg), v1); err != nil || again != msg {
			t.Errorf("%x is %+v, and appended and parsed again %+v, %v", b, msg, again, err)
		}
	})
}
