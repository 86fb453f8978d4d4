package accesslog

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"strconv"
	"time"

	"proxyd/internal/config"
)

// lookEvery is how often a file is looked for under its name, and opened again if it is
// gone from there or never was.
const lookEvery = time.Second

// A file is an output with a name. Lines are appended, so that others may cut it
// (copytruncate). It is opened again when it was moved away or deleted.
type file struct {
	path   string
	rotate *config.Rotate // nil: never
	f      *os.File       // nil while it cannot be opened
	size   int64
	torn   bool // the last write ended within a line
	looked time.Time
}

func openFile(path string, rotate *config.Rotate) (*file, error) {
	f := &file{path: path, rotate: rotate}
	return f, f.open()
}

var errNotOpen = errors.New("the file is not open")

func (f *file) open() error {
	f.looked = time.Now()
	opened, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if f.f != nil {
		f.f.Close()
	}
	f.f, f.torn, f.size = opened, false, 0
	if info, err := opened.Stat(); err == nil && info.Mode().IsRegular() {
		f.size = info.Size()
	}
	return nil
}

// reopen opens the file under its name. If that fails, the old one is written to
// further.
func (f *file) reopen() error { return f.open() }

func (f *file) close() error {
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}

// write appends lines. After a write that failed half-way the next one begins a line of
// its own.
func (f *file) write(lines []byte) (lost int, err error) {
	looked := f.look()
	if f.f == nil {
		return bytes.Count(lines, newline), cmp.Or(looked, errNotOpen)
	}
	turned := f.turn(len(lines))
	if f.torn {
		if _, err := f.f.Write(newline); err != nil {
			return bytes.Count(lines, newline), err
		}
		f.torn = false
	}
	n, err := f.f.Write(lines)
	f.size += int64(n)
	if err != nil {
		f.torn = n > 0 && lines[n-1] != '\n'
		return bytes.Count(lines[n:], newline), err
	}
	return 0, errors.Join(looked, turned)
}

// look opens the file again if it is no longer what its name stands for. Where that
// fails because there is no such directory any more, what is open has no name either,
// and nobody would ever read it.
func (f *file) look() error {
	now := time.Now()
	if now.Sub(f.looked) < lookEvery {
		return nil
	}
	f.looked = now
	if f.f != nil {
		named, err := os.Stat(f.path)
		if err == nil {
			if open, err := f.f.Stat(); err == nil && os.SameFile(named, open) {
				f.size = open.Size() // somebody may have cut it
				return nil
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil // as far as one can see it is there
		}
	}
	err := f.open()
	if err != nil && f.f != nil {
		f.f.Close()
		f.f = nil
	}
	return err
}

// turn begins a new file if n more bytes would be too many for this one. If that fails
// the old one is written to further.
func (f *file) turn(n int) error {
	if f.rotate == nil || f.size == 0 || f.size+int64(n) <= int64(f.rotate.Size) {
		return nil
	}
	for i := f.rotate.Keep - 1; i >= 1; i-- {
		if err := os.Rename(f.old(i), f.old(i+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(f.path, f.old(1)); err != nil {
		return err
	}
	return f.open()
}

func (f *file) old(i int) string { return f.path + "." + strconv.Itoa(i) }
