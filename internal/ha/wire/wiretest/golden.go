// Package wiretest keeps formats that two releases must share as they are: in testdata, byte
// by byte.
package wiretest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update-wire", false, "add what is written now to the golden files of formats; none that is there changes")

// advice is what a changed format has to be told.
const advice = `%s is what releases write and read, and what is written now differs.
  By accident: undo it, or nodes of two releases do not understand each other.
  Something was added that the release before skips (a field behind the others, a record, a flag): run
    go test -run %s -update-wire
  which adds %s; that release goes on reading and writing the file before it.
  Anything else: raise wire.Newest, write the new form in that version alone, and go on writing this one to who speaks it.
was %s
now %s`

// Golden holds what is written now to the latest of testdata/NAME, testdata/NAME.2, ..., and
// returns all of them, the oldest first: each must be read for as long as the version counts.
// A name that ends in .hex is kept as hexadecimal digits.
func Golden(t *testing.T, name string, written []byte) [][]byte {
	t.Helper()
	var all [][]byte
	file := path(name, 1)
	for n := 1; ; n++ {
		b, err := read(path(name, n))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all, file = append(all, b), path(name, n)
	}
	if len(all) > 0 && bytes.Equal(all[len(all)-1], written) {
		return all
	}
	next := path(name, len(all)+1)
	switch {
	case *update:
		if err := write(next, written); err != nil {
			t.Fatal(err)
		}
		all = append(all, written)
	case len(all) == 0:
		t.Fatalf("%s is not there: go test -run %s -update-wire", file, t.Name())
	default:
		t.Fatalf(advice, file, t.Name(), next, show(name, all[len(all)-1]), show(name, written))
	}
	return all
}

func path(name string, n int) string {
	if n > 1 {
		ext := filepath.Ext(name)
		name = fmt.Sprintf("%s.%d%s", strings.TrimSuffix(name, ext), n, ext)
	}
	return filepath.Join("testdata", filepath.FromSlash(name))
}

func binary(name string) bool { return filepath.Ext(name) == ".hex" }

func show(name string, b []byte) string {
	if binary(name) {
		return hex.EncodeToString(b)
	}
	return string(b)
}

func read(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil || !binary(file) {
		return text, err
	}
	return hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
}

func write(file string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if binary(file) {
		var out strings.Builder
		for len(b) > 0 {
			n := min(len(b), 32)
			fmt.Fprintf(&out, "%x\n", b[:n])
			b = b[n:]
		}
		b = []byte(out.String())
	}
	return os.WriteFile(file, b, 0o644)
}

// Kept returns testdata/NAME, which was written once and must be read for ever. It is for what
// is not written the same each time, such as what is compressed; now is what it is made of if
// it is not there.
func Kept(t *testing.T, name string, now []byte) []byte {
	t.Helper()
	file := path(name, 1)
	b, err := read(file)
	if errors.Is(err, fs.ErrNotExist) && *update {
		b, err = now, write(file, now)
	}
	if err != nil {
		t.Fatalf("%v: go test -run %s -update-wire", err, t.Name())
	}
	return b
}
