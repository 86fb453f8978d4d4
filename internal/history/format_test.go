package history

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"proxyd/internal/ha/wire/wiretest"
	"proxyd/internal/ondisk"
)

func TestLineKeepsItsFormat(t *testing.T) {
	e := Entry{Node: "edge-1", Life: 7, Seq: 3, Time: noon, Kind: Changed, VIP: "public", Term: 12, From: "edge-2", To: "edge-1",
		Reason: "node_dead", Text: "kernel", TookMS: 12.5, Steps: []Step{{MS: -1.5, What: "lost", Node: "edge-2", Text: "silent"}}}
	for i, line := range wiretest.Golden(t, "v1/history.log", appendLine(nil, &e)) {
		got, whole, bad, newer := parse(line)
		if len(got) != 1 || whole != int64(len(line)) || bad+newer > 0 || !reflect.DeepEqual(got[0], e) {
			t.Errorf("number %d: %+v, %d bad, %d newer", i+1, got, bad, newer)
		}
	}
}

// What a later release wrote is passed over and stays where it is.
func TestLinesOfALaterReleaseStay(t *testing.T) {
	dir := t.TempDir()
	text := `{"version":2,"who":"edge-1","what":"something new"}`
	mine := Entry{Node: "edge-1", Life: 7, Seq: 3, Time: noon, Kind: Heard}
	before := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum([]byte(text), castagnoli), text)
	before = appendLine(before, &mine)
	file := filepath.Join(dir, current)
	if err := os.WriteFile(file, before, 0o640); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir, "edge-1", noon.Add(time.Hour))
	if !errors.Is(err, ondisk.ErrNewer) {
		t.Errorf("Open = %v", err)
	}
	if got := r.All(); len(got) != 1 || got[0].Seq != 3 || r.Stats().Corrupted > 0 {
		t.Errorf("%+v, %+v", got, r.Stats())
	}
	r.Note(Entry{Kind: Started, Text: "again"})
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(file)
	if err != nil || len(after) <= len(before) || string(after[:len(before)]) != string(before) {
		t.Errorf("the file was %q and is %q, %v", before, after, err)
	}
}
