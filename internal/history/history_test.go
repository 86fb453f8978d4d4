package history

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 8, 11, 12, 0, 0, 0, time.UTC)

// open opens a ring and writes what it waits with at the end of the test.
func open(t *testing.T, dir, node string, life int64) *Ring {
	t.Helper()
	r, err := Open(dir, node, time.Unix(0, life))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func note(r *Ring, n int) {
	for i := range n {
		r.Note(Entry{Kind: Heard, To: "edge-2", Text: fmt.Sprint(i), Time: noon.Add(time.Duration(i) * time.Second)})
	}
}

func texts(entries []Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Text)
	}
	return strings.Join(out, " ")
}

func TestARestartKeepsWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "edge-1", 1)
	note(r, 3)
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir, "edge-1", 2)
	r.Note(Entry{Kind: Started, Text: "again", Time: noon.Add(time.Hour)})
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	if got, want := texts(open(t, dir, "edge-1", 3).All()), "0 1 2 again"; got != want {
		t.Errorf("entries %q, want %q", got, want)
	}
}

// kill -9 in the middle of a write leaves a part of a line.
func TestATornTailIsDroppedAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "edge-1", 1)
	note(r, 3)
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, current)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	start := len(whole) - len(lines[2])
	for cut := start + 1; cut < len(whole); cut++ {
		if err := os.WriteFile(file, whole[:cut], 0o640); err != nil {
			t.Fatal(err)
		}
		r := open(t, dir, "edge-1", 2)
		if got := texts(r.All()); got != "0 1" || r.Stats().Corrupted != 1 {
			t.Fatalf("cut at %d: entries %q, %d corrupted", cut, got, r.Stats().Corrupted)
		}
		r.Note(Entry{Kind: Started, Text: "after", Time: noon.Add(time.Hour)})
		if err := r.flush(); err != nil {
			t.Fatal(err)
		}
		if got := texts(open(t, dir, "edge-1", 3).All()); got != "0 1 after" {
			t.Fatalf("cut at %d: what was written after it reads %q", cut, got)
		}
	}
}

func TestAFlippedBitCostsOneEntry(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "edge-1", 1)
	note(r, 3)
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, current)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second := strings.Index(string(text), "\n") + 1
	text[second+20] ^= 1
	if err := os.WriteFile(file, text, 0o640); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir, "edge-1", 2)
	if got := texts(r.All()); got != "0 2" || r.Stats().Corrupted != 1 {
		t.Errorf("entries %q, %d corrupted; want 0 2 and 1", got, r.Stats().Corrupted)
	}
}

func TestTheDiskIsBounded(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "edge-1", 1)
	long := strings.Repeat("x", maxText)
	for i := range 6000 {
		r.Note(Entry{Kind: Config, Text: long})
		if i%100 == 0 {
			if err := r.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, f := range files {
		i, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += i.Size()
	}
	if len(files) != 2 || size > 3*maxFile || size < maxFile {
		t.Errorf("%d files of %d bytes", len(files), size)
	}
	if n := r.Stats().Entries; n > maxKept {
		t.Errorf("%d entries in memory", n)
	}
}

// A full disk, or one that is gone, costs history and holds up nobody; when it is there
// again, what waits is written.
func TestAFailingDiskIsCountedAndOutlived(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	r, err := Open(dir, "edge-1", noon)
	if err == nil {
		t.Error("Open says nothing of a directory that is a file")
	}
	note(r, maxWaiting+5)
	if err := r.flush(); err == nil {
		t.Fatal("written to nowhere")
	}
	if s := r.Stats(); s.Errors != 1 || s.Lost != 5 || s.Fault == "" || s.Entries != maxWaiting+5 {
		t.Errorf("Stats = %+v", s)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); s.Fault != "" || s.Written != maxWaiting {
		t.Errorf("Stats = %+v", s)
	}
	if got := open(t, dir, "edge-1", 2).Stats().Entries; got != maxWaiting {
		t.Errorf("%d entries on the disk, want %d", got, maxWaiting)
	}
}

func TestRunWritesWhatWaitsWhenItEnds(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "edge-1", 1)
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	note(r, 3)
	end()
	<-done
	if got := texts(open(t, dir, "edge-1", 2).All()); got != "0 1 2" {
		t.Errorf("entries %q", got)
	}
}

// A node that was away, or lost its disk, learns what the others wrote, once.
func TestPackedEntriesAreLearnedOnce(t *testing.T) {
	a, b := open(t, t.TempDir(), "edge-1", 1), open(t, t.TempDir(), "edge-2", 1)
	note(a, 500)
	packed := a.Pack()
	entries, err := Unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	if n := b.Learn(entries); n != maxShared {
		t.Errorf("learned %d, want %d", n, maxShared)
	}
	if n := b.Learn(entries); n != 0 {
		t.Errorf("learned %d a second time", n)
	}
	if last := b.All()[maxShared-1]; last.Node != "edge-1" || last.Text != "499" {
		t.Errorf("last %+v", last)
	}
	if n := a.Learn(entries); n != 0 {
		t.Errorf("a node learned %d of its own", n)
	}
}

func TestOrder(t *testing.T) {
	e := func(node string, seq uint64, at int, vip string, term uint64) Entry {
		return Entry{Node: node, Life: 1, Seq: seq, Time: noon.Add(time.Duration(at) * time.Second), VIP: vip, Term: term, Text: fmt.Sprintf("%s%d", node, seq)}
	}
	for _, c := range []struct {
		name string
		in   []Entry
		want string
	}{
		{"clocks that agree", []Entry{e("b", 1, 3, "", 0), e("a", 1, 1, "v", 1), e("a", 2, 4, "v", 3), e("b", 2, 5, "v", 3)}, "a1 b1 a2 b2"},
		{"a clock that is behind", []Entry{e("a", 1, 100, "v", 1), e("a", 2, 101, "v", 1), e("b", 1, 5, "v", 2), e("b", 2, 6, "", 0), e("a", 3, 103, "v", 3)}, "a1 a2 b1 b2 a3"},
		{"another VIP's terms do not matter", []Entry{e("a", 1, 2, "v", 9), e("b", 1, 1, "w", 1), e("b", 2, 3, "w", 2)}, "b1 a1 b2"},
		{"terms that contradict each other", []Entry{e("a", 1, 1, "v", 5), e("a", 2, 2, "v", 1), e("b", 1, 3, "v", 4)}, "a1 a2 b1"},
		{"nothing", nil, ""},
	} {
		if got := texts(Order(c.in)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		back := slices.Clone(c.in)
		slices.Reverse(back)
		if got := texts(Order(back)); got != c.want {
			t.Errorf("%s, backwards: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestFollowTellsWhatIsNoted(t *testing.T) {
	r := open(t, t.TempDir(), "edge-1", 1)
	ctx, end := context.WithCancel(t.Context())
	told := make(chan Entry)
	done := make(chan error)
	go func() { done <- r.Follow(ctx, func(e Entry) error { told <- e; return nil }) }()
	for following := false; !following; runtime.Gosched() {
		r.mu.Lock()
		following = len(r.ears) == 1
		r.mu.Unlock()
	}
	r.Note(Entry{Kind: Stall, Text: "now"})
	if e := <-told; e.Text != "now" {
		t.Errorf("told %+v", e)
	}
	end()
	if err := <-done; err != nil {
		t.Errorf("Follow = %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	r, _ := Open(f.TempDir(), "edge-1", noon)
	r.Note(Entry{Kind: Heard, To: "edge-2"})
	f.Add(r.Pack())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := Unpack(b)
		if err == nil {
			Order(entries)
			Why(entries, "", 0)
		}
	})
}

func FuzzParse(f *testing.F) {
	e := Entry{Node: "edge-1", Kind: Heard}
	f.Add(appendLine(nil, &e))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, whole, bad, newer := parse(b)
		if whole > int64(len(b)) || len(entries) > 0 && whole == 0 || bad+newer == 0 && len(entries) == 0 && len(b) > 0 {
			t.Errorf("%d entries, %d bytes, %d bad of %q", len(entries), whole, bad, b)
		}
	})
}
