package state

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func entry(key, value string, term, seq uint64, node string) Entry {
	return Entry{Kind: "ban", Key: key, Value: []byte(value), Stamp: Stamp{term, seq, node}}
}

func TestLastWriterWins(t *testing.T) {
	old := entry("k", "old", 2, 7, "b")
	for _, c := range []struct {
		name  string
		later Entry
		wins  bool
	}{
		{"higher term, lower sequence", entry("k", "new", 3, 1, "a"), true},
		{"lower term, higher sequence", entry("k", "new", 1, 99, "z"), false},
		{"same term, higher sequence", entry("k", "new", 2, 8, "a"), true},
		{"same sequence, higher node", entry("k", "new", 2, 7, "c"), true},
		{"same sequence, lower node", entry("k", "new", 2, 7, "a"), false},
		{"the same again", old, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New("x")
			s.Merge([]Entry{old})
			if got := len(s.Merge([]Entry{c.later})) == 1; got != c.wins {
				t.Errorf("wins = %v, want %v", got, c.wins)
			}
		})
	}
}

func TestPutIsAfterWhatWasSeen(t *testing.T) {
	s := New("a")
	s.Merge([]Entry{entry("k", "theirs", 1, 50, "z")})
	e, changed, err := s.Put(1, "ban", "k", []byte("ours"), noon.Add(time.Millisecond))
	if err != nil || !changed || e.Stamp != (Stamp{1, 51, "a"}) || e.Expires != noon.Add(time.Second) {
		t.Fatalf("Put = %+v, %v, %v", e, changed, err)
	}
	if got, ok := s.Get("ban", "k", noon); !ok || string(got.Value) != "ours" {
		t.Errorf("Get = %+v, %v", got, ok)
	}
}

func TestAnOldTermWritesInVain(t *testing.T) {
	s := New("a")
	s.Merge([]Entry{entry("k", "new holder", 9, 1, "b")})
	if _, changed, err := s.Put(8, "ban", "k", []byte("old holder"), time.Time{}); changed || err != nil {
		t.Errorf("Put under an old term: changed %v, %v", changed, err)
	}
}

func TestDeletedStaysDeleted(t *testing.T) {
	s := New("a")
	e, _, _ := s.Put(1, "ban", "k", []byte("v"), time.Time{})
	if _, changed, err := s.Delete(1, "ban", "k", noon.Add(time.Hour)); !changed || err != nil {
		t.Fatalf("Delete: %v, %v", changed, err)
	}
	s.Merge([]Entry{e}) // a node that was away still has it
	if _, ok := s.Get("ban", "k", noon); ok {
		t.Error("a deleted entry came back")
	}
	if over := s.Expire(noon.Add(time.Hour)); len(over) != 0 || len(s.All()) != 0 {
		t.Errorf("an expired tombstone is %v, %v left", over, s.All())
	}
}

func TestExpiredIsOver(t *testing.T) {
	s := New("a")
	e, _, _ := s.Put(1, "ban", "k", []byte("v"), noon)
	if _, ok := s.Get("ban", "k", noon.Add(-1)); !ok {
		t.Error("over too early")
	}
	if _, ok := s.Get("ban", "k", noon); ok || len(s.Kind("ban", noon)) != 0 {
		t.Error("not over in time")
	}
	if over := s.Expire(noon); !cmp.Equal(over, []Entry{e}) {
		t.Errorf("Expire = %v", over)
	}
}

func TestSinceIsTheDelta(t *testing.T) {
	s := New("a")
	s.Put(1, "ban", "one", nil, time.Time{})
	seq := s.Seq()
	two, _, _ := s.Put(1, "ban", "two", nil, time.Time{})
	if d := cmp.Diff([]Entry{two}, s.Since(seq)); d != "" {
		t.Error(d)
	}
}

func TestTooLargeIsRefused(t *testing.T) {
	s := New("a")
	if _, _, err := s.Put(1, "cert", "k", make([]byte, MaxValue+1), time.Time{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Put = %v, want ErrTooLarge", err)
	}
	if _, _, err := s.Put(1, "cert", strings.Repeat("k", 256), nil, time.Time{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Put = %v, want ErrTooLarge", err)
	}
	big := entry("k", "", 1, 1, "b")
	big.Value = make([]byte, MaxValue+1)
	if got := s.Merge([]Entry{big}); got != nil {
		t.Error("Merge took in an entry that is too large")
	}
	e, _, err := s.Put(1, "cert", "k", make([]byte, MaxValue), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(Append(nil, 1, []Entry{e}), v1); err != nil || len(got) != 1 || got[0].compare(e) != 0 {
		t.Errorf("the largest entry does not survive the wire: %v", err)
	}
}

func TestThereIsRoomForSoMuch(t *testing.T) {
	s := New("a")
	for i := range MaxSize / MaxValue {
		if _, _, err := s.Put(1, "cert", string('a'+rune(i)), make([]byte, MaxValue-1000), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Put(1, "cert", "more", make([]byte, MaxValue), time.Time{}); !errors.Is(err, ErrFull) {
		t.Errorf("Put of too much = %v, want ErrFull", err)
	}
	if _, _, err := s.Put(1, "cert", "a", make([]byte, 10), time.Time{}); err != nil {
		t.Errorf("Put of less in the place of more = %v", err)
	}
	for i := range 3 * MaxSize / MaxValue {
		s.Merge([]Entry{{Kind: "cert", Key: "theirs" + string('a'+rune(i)), Value: make([]byte, MaxValue), Stamp: Stamp{1, uint64(i + 100), "b"}}})
	}
	if n := len(Append(nil, 1, s.All())); n > 2*MaxSize+1 {
		t.Errorf("the store has %d bytes", n)
	}
	if s.Expire(noon); s.size != len(Append(nil, 1, s.All()))-1 {
		t.Errorf("size is %d, of %d bytes", s.size, len(Append(nil, 1, s.All()))-1)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := Append(nil, 1, []Entry{entry("k", "value", 1, 2, "a")})
	long := bytes.Clone(good)
	copy(long[len(long)-len("value")-4:], []byte{0xff, 0xff, 0xff, 0xff})
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"another version": append([]byte{2}, good[1:]...),
		"cut short":       good[:len(good)-1],
		"unknown flags":   append([]byte{1, 0x80}, good[2:]...),
		"a huge length":   long,
		"an endless grave": Append(nil, 1, []Entry{{Kind: "ban", Key: "k", Deleted: true,
			Stamp: Stamp{1, 1, "a"}}}),
	} {
		if _, err := Decode(b, v1); !errors.Is(err, ErrWire) {
			t.Errorf("%s: Decode = %v, want ErrWire", name, err)
		}
	}
}

// FuzzMergeConverges: the same entries in any order, any number of times and in any
// parts give the same store.
func FuzzMergeConverges(f *testing.F) {
	f.Add(uint64(1), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	f.Add(uint64(7), bytes.Repeat([]byte{0, 1, 1, 1}, 20))
	f.Fuzz(func(t *testing.T, seed uint64, b []byte) {
		var entries []Entry
		for ; len(b) >= 4; b = b[4:] { // few names and stamps, so that they collide
			e := entry(string('a'+rune(b[0]%3)), string(b[1:2]), uint64(b[2]%3), uint64(b[2]/3%4), string('a'+rune(b[3]%2)))
			if e.Expires = time.Unix(int64(1+b[3]/4%3), 0).UTC(); b[3]&128 != 0 {
				e.Deleted, e.Value = true, nil
			}
			entries = append(entries, e)
		}
		r := rand.New(rand.NewPCG(seed, 1))
		one, two := New("one"), New("two")
		one.Merge(entries)
		again := slices.Concat(entries, entries)
		r.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		half := New("half")
		for i, e := range again {
			if i%2 == 0 {
				half.Merge([]Entry{e})
			} else {
				two.Merge([]Entry{e})
			}
		}
		rest, err := Decode(Append(nil, 1, half.All()), v1)
		if err != nil {
			t.Fatal(err)
		}
		two.Merge(rest)
		if one.Digest() != two.Digest() {
			t.Errorf("one order gives\n%v\nanother\n%v", one.All(), two.All())
		}
		if changed := two.Merge(one.All()); changed != nil {
			t.Errorf("merging the same again changes %v", changed)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, 1, nil))
	f.Add(Append(nil, 1, []Entry{entry("k", "value", 1, 2, "a"), {Kind: "ban", Key: "x", Deleted: true, Stamp: Stamp{1, 1, "a"}, Expires: noon}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := Decode(b, v1)
		if err != nil {
			return
		}
		if again := Append(nil, 1, entries); !bytes.Equal(again, b) {
			t.Errorf("%x decoded and appended is %x", b, again)
		}
	})
}
