package election

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestMsgSurvivesTheWire(t *testing.T) {
	for _, msg := range []Msg{
		{},
		{Kind: Ask, Term: 7, Sent: 123456789, Info: Info{Holds: true, Ill: 7, Hears: true, Held: time.Hour, Prefer: 1}},
		{Kind: Refuse, Term: 1<<63 - 1, To: "[2001:db8::1]:7946", Info: Info{Quiet: true, Deaf: true}},
		{Kind: Waive, Term: 9, To: ID(strings.Repeat("x", 255)), Reason: Isolated, Chosen: true},
	} {
		b := AppendMsg([]byte("before"), msg)
		got, err := ParseMsg(b[len("before"):])
		if err != nil || got != msg {
			t.Errorf("ParseMsg(AppendMsg(%+v)) = %+v, %v", msg, got, err)
		}
		if len(b)-len("before") > MaxMsgSize {
			t.Errorf("%d bytes, more than MaxMsgSize", len(b)-len("before"))
		}
	}
}

func TestParseMsgRefuses(t *testing.T) {
	good := AppendMsg(nil, Msg{Kind: Waive, Term: 1, To: "b"})
	change := func(i int, to byte) []byte {
		b := bytes.Clone(good)
		b[i] = to
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"another version": change(0, 2),
		"unknown kind":    change(1, 4),
		"unknown reason":  change(2, 8),
		"unknown flag":    change(3, 0x20),
		"term too high":   change(6, 0x80),
		"negative time":   change(14, 0x80),
		"negative hold":   change(22, 0x80),
		"cut short":       good[:len(good)-1],
		"head cut short":  good[:wireHeadSize-1],
		"something after": append(bytes.Clone(good), 0),
	} {
		if _, err := ParseMsg(b); !errors.Is(err, ErrMsg) {
			t.Errorf("%s: ParseMsg = %v, want ErrMsg", name, err)
		}
	}
}

func FuzzParseMsg(f *testing.F) {
	f.Add(AppendMsg(nil, Msg{Kind: Waive, Term: 1, To: "b", Reason: Planned}))
	f.Add(AppendMsg(nil, Msg{Kind: Ask, Sent: 1, Info: Info{Holds: true}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := ParseMsg(b)
		if err != nil {
			return
		}
		if again := AppendMsg(nil, msg); !bytes.Equal(again, b) {
			t.Errorf("%x parsed and appended is %x", b, again)
		}
	})
}
