package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"proxyd/internal/config"
)

const (
	// quietTime is how long nothing must happen in a watched directory before the file is
	// read: an editor, or a tool that copies several files, is done by then.
	quietTime = 200 * time.Millisecond
	// restless is how long it is waited for quiet at most.
	restless = 2 * time.Second
)

// A watch waits for changes in the directories of a configuration's files. A directory,
// unlike a file, is still the same after a rename put another file in its place.
type watch struct {
	dirs   []string
	events *os.File // of inotify
}

// watch begins or ends waiting for changes, as n.config says. n.mu is held.
func (n *node) watch() {
	var dirs []string
	if n.config.Node.Watch {
		dirs = directories(n.texts())
	}
	if n.watching != nil {
		if slices.Equal(n.watching.dirs, dirs) {
			return
		}
		n.watching.events.Close()
		n.watching = nil
	}
	if len(dirs) == 0 {
		return
	}
	w, err := openWatch(dirs)
	if err != nil {
		n.log.Error("node.watch: changes of the file are not seen; `hactl reload` reads it", "error", err)
		return
	}
	n.watching = w
	go n.followFiles(w) // ends when w is closed
}

// directories are those in which the files of a configuration are, sorted.
func directories(t config.Texts) []string {
	names, patterns := t.Files()
	var dirs []string
	for _, name := range names {
		dirs = append(dirs, filepath.Dir(name))
	}
	for _, p := range patterns {
		more, _ := filepath.Glob(filepath.Dir(p)) // the configuration has read the pattern
		dirs = append(dirs, more...)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func openWatch(dirs []string) (*watch, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &watch{dirs: dirs, events: os.NewFile(uintptr(fd), "inotify")}
	const change = syscall.IN_CLOSE_WRITE | syscall.IN_MOVED_TO | syscall.IN_MOVED_FROM | syscall.IN_CREATE | syscall.IN_DELETE
	for _, dir := range dirs {
		if _, err := syscall.InotifyAddWatch(fd, dir, change|syscall.IN_ONLYDIR); err != nil {
			w.events.Close()
			return nil, fmt.Errorf("inotify: %s: %w", dir, err)
		}
	}
	return w, nil
}

// followFiles reads the configuration again after each change of its files, until w is
// closed. It looks before it waits: what changed before w was opened is no event of it.
func (n *node) followFiles(w *watch) {
	for {
		n.lookAgain()
		if !w.wait() {
			return
		}
	}
}

// wait returns after something has happened in the directories, and then nothing for a
// while; false if w is closed.
func (w *watch) wait() bool {
	// The kernel merges what is not read; which file it was does not matter.
	events := make([]byte, 4096)
	if w.events.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	if _, err := w.events.Read(events); err != nil {
		return false
	}
	last := time.Now().Add(restless)
	for {
		quiet := time.Now().Add(quietTime)
		if quiet.After(last) {
			quiet = last
		}
		if w.events.SetReadDeadline(quiet) != nil {
			return false
		}
		if _, err := w.events.Read(events); errors.Is(err, os.ErrDeadlineExceeded) {
			return true
		} else if err != nil {
			return false
		}
	}
}

// lookAgain is a reload if the files say something else than when they were last read.
func (n *node) lookAgain() {
	n.mu.Lock()
	same := n.tried == digest(n.texts())
	n.mu.Unlock()
	if same {
		return // another file, or what was read already
	}
	r, err := n.reload()
	n.tell("watch", r, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watch() // a bad file may include from elsewhere, where it will be mended
}

// digest is of all texts that t names, or of why one cannot be read.
func digest(t config.Texts) [32]byte {
	h := sha256.New()
	names, _ := t.Files()
	for _, name := range names {
		text, err := os.ReadFile(name)
		fmt.Fprintf(h, "%q %v %d\n", name, err, len(text))
		h.Write(text)
	}
	return [32]byte(h.Sum(nil))
}
