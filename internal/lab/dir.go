package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const dirPattern = "proxyd-lab-"

// A runDir is the one thing that a lab leaves on disk: sockets, configurations and logs of
// a run. It is locked while the run lives, so the next one knows which are stale.
type runDir struct {
	path string
	lock *os.File
}

// newRunDir removes what dead runs of this user left and makes a directory for a new one.
// Others may look for the sockets in it, so it is as short as can be: a Unix socket's path
// has at most 107 bytes.
func newRunDir() (*runDir, error) {
	sweep(os.TempDir())
	path, err := os.MkdirTemp("", dirPattern)
	if err != nil {
		return nil, fmt.Errorf("make a directory for this run: %w", err)
	}
	d := &runDir{path: path}
	if d.lock, err = os.Create(d.file("lock")); err == nil {
		err = syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		d.remove()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return d, nil
}

// sweep removes the directories of runs whose process is gone.
func sweep(temp string) {
	dirs, _ := filepath.Glob(filepath.Join(temp, dirPattern+"*"))
	for _, dir := range dirs {
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue // another user's, or one that is just being made
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			unmountBelow(dir)
			_ = os.RemoveAll(dir) // what cannot be removed is tried again by the next run
		}
		lock.Close()
	}
}

func (d *runDir) file(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// unmountBelow takes away the file systems that a drill has mounted below a directory and had
// no time to.
func unmountBelow(dir string) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			_ = syscall.Unmount(fields[4], unix.MNT_DETACH)
		}
	}
}

func (d *runDir) remove() {
	unmountBelow(d.path)
	_ = os.RemoveAll(d.path) // a rest is swept by the next run
	if d.lock != nil {
		d.lock.Close()
	}
}
