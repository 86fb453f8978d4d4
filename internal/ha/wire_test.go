package ha

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

// everything takes a frame apart into the values of its records.
func everything(b []byte) (out []any, err error) {
	err = records(b, wire.Range{}.Or(), func(kind recordKind, r *reader) error {
		switch kind {
		case helloRecord:
			var v hello
			if err := v.read(r); err != nil {
				return err
			}
			out = append(out, v)
		case tenureRecord:
			var v tenure
			if err := v.read(r); err != nil {
				return err
			}
			out = append(out, v)
		case electionRecord:
			var v ballot
			if err := v.read(r); err != nil {
				return err
			}
			out = append(out, v)
		case requestRecord:
			var v request
			if err := v.read(r); err != nil {
				return err
			}
			out = append(out, v)
		case seatRecord:
			var v seat
			if err := v.read(r); err != nil {
				return err
			}
			out = append(out, v)
		case noteRecord:
			var v note
			if err := v.read(r); err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

var samples = []any{
	hello{Seq: 3, State: Unfit, Uptime: time.Hour, Name: "edge-1", Version: "1.0.0", Config: "7f3a91c", Voters: 1 << 60, Reason: "no servers", Witness: true},
	tenure{Seq: 3, VIP: "public", Holds: true, Term: 1001, Held: time.Minute, Reason: election.Planned, From: "edge-2", Text: "kernel", Chosen: true},
	ballot{VIP: "public", Msg: election.Msg{Kind: election.Waive, Term: 1001, Sent: 5, To: "10.0.0.2:7946", Reason: election.Planned,
		Info: election.Info{Holds: true, Ill: 9, Held: time.Minute, Prefer: 1}}},
	request{ID: 1 << 63, VIP: "public", To: "10.0.0.2:7946", Chosen: true},
	note{VIP: "public", Text: "kernel"},
	seat{VIP: "public", Term: 1001, Left: time.Minute, Conns: -1, MAC: [6]byte{2, 0, 0, 0, 0, 1}, Addr: netip.MustParseAddr("10.0.0.1")},
	seat{VIP: "public6", Term: 1001, Holds: true, Conns: 12, MAC: [6]byte{2, 0, 0, 0, 0, 1}},
}

// addrs compares addresses, which have no fields to look at.
var addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// framed sends samples through a frame and returns what was sent.
func framed(values []any) (sent [][]byte) {
	f := frame{version: wire.Newest, send: func(b []byte) { sent = append(sent, bytes.Clone(b)) }}
	for _, v := range values {
		switch v := v.(type) {
		case hello:
			f.add(helloRecord, v.append)
		case tenure:
			f.add(tenureRecord, v.append)
		case ballot:
			f.add(electionRecord, v.in(wire.Newest))
		case request:
			f.add(requestRecord, v.append)
		case seat:
			f.add(seatRecord, v.append)
		case note:
			f.add(noteRecord, v.append)
		}
	}
	f.flush()
	return sent
}

func TestFrameIsReadAsItWasWritten(t *testing.T) {
	sent := framed(samples)
	if len(sent) != 1 {
		t.Fatalf("%d frames, want 1", len(sent))
	}
	got, err := everything(sent[0])
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(samples, got, cmp.AllowUnexported(hello{}, tenure{}, ballot{}, request{}, note{}), addrs); d != "" {
		t.Errorf("(-written +read)\n%s", d)
	}
}

func TestFullFramesAreSplit(t *testing.T) {
	var many []any
	for range 100 {
		many = append(many, samples...)
	}
	var got []any
	for _, b := range framed(many) {
		if len(b) > maxFrame {
			t.Errorf("frame of %d bytes, want at most %d", len(b), maxFrame)
		}
		part, err := everything(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part...)
	}
	if len(got) != len(many) {
		t.Errorf("%d records arrived, want %d", len(got), len(many))
	}
}

func TestFrameOfALaterReleaseIsReadAsFarAsItIsKnown(t *testing.T) {
	b := framed(samples[4:5])[0]
	b = append(b, 200, 0, 3, 1, 2, 3) // an unknown record
	longer := framed(samples[3:4])[0][1:]
	longer = append(longer, 9, 9) // two bytes more in a known one
	longer[2] += 2
	got, err := everything(append(b, longer...))
	if err != nil || len(got) != 2 || got[0] != samples[4] || got[1] != samples[3] {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestARecordThatIsNotUnderstoodDoesNotSpoilTheOthers(t *testing.T) {
	b := framed(samples[4:5])[0]
	bad := framed(samples[2:3])[0][1:]
	text := int(bad[3]) // the VIP's name goes before the election's message
	bad[3+1+text] = 99  // its version
	last := framed(samples[3:4])[0][1:]
	got, err := everything(append(append(b, bad...), last...))
	if !errors.Is(err, election.ErrMsg) || len(got) != 2 || got[0] != samples[4] || got[1] != samples[3] {
		t.Errorf("read %+v, %v; want the two records that are understood, and the error", got, err)
	}
}

func TestCutShortFrameIsRefused(t *testing.T) {
	whole := framed(samples[:1])[0]
	for n := range len(whole) {
		if n == 1 {
			continue // a frame without records
		}
		if _, err := everything(whole[:n]); !errors.Is(err, ErrFrame) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
}

func TestBeatIsWrittenWithoutAllocating(t *testing.T) {
	h := samples[0].(hello)
	m := samples[2].(ballot)
	f := frame{send: func([]byte) {}}
	write := func() {
		f.add(helloRecord, h.append)
		f.add(electionRecord, m.in(wire.Newest))
		f.flush()
	}
	write()
	// Each record's method value is one closure; the buffer is used again.
	if n := testing.AllocsPerRun(1000, write); n > 2 {
		t.Errorf("%v allocations, want at most 2", n)
	}
}

func FuzzFrame(f *testing.F) { // G8
	for i := range samples {
		f.Add(framed(samples[i : i+1])[0])
	}
	f.Add(framed(samples)[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := everything(b)
		if err != nil {
			return
		}
		// What is read is what would be written and read again.
		var again []any
		for _, part := range framed(got) {
			values, err := everything(part)
			if err != nil {
				t.Fatalf("read again: %v", err)
			}
			again = append(again, values...)
		}
		if d := cmp.Diff(got, again, cmp.AllowUnexported(hello{}, tenure{}, ballot{}, request{}, note{}), addrs); d != "" {
			t.Errorf("(-once +twice)\n%s", d)
		}
	})
}

// What a release before does not know stands behind the rest, and is not there where there is
// nothing to say.
func TestTenureSaysWhyItCannotBeHeld(t *testing.T) {
	for _, fault := range []string{"", "no such device"} {
		want := tenure{Seq: 3, VIP: "public", Term: 7, Fault: fault}
		var got tenure
		if err := got.read(&reader{b: want.append(nil)}); err != nil || got != want {
			t.Errorf("%+v is read as %+v, %v", want, got, err)
		}
	}
}
