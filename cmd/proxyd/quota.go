package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// A quota watches the control groups that this process is in for a share of the processor
// that was used up.
type quota struct {
	self, root string // /proc/self/cgroup and /sys/fs/cgroup, if not in a test

	mu   sync.Mutex // guards what follows
	last map[string]uint64
}

func newQuota() *quota { return &quota{self: "/proc/self/cgroup", root: "/sys/fs/cgroup"} }

// Curbed reports whether a quota has held this process back since the call before. If
// nothing can be found out, it may have.
func (q *quota) Curbed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	text, err := os.ReadFile(q.self)
	if err != nil {
		return true
	}
	was := q.last
	q.last = map[string]uint64{}
	curbed := false
	for _, dir := range groups(string(text)) {
		stat, err := os.ReadFile(filepath.Join(q.root, dir, "cpu.stat"))
		if err != nil {
			continue
		}
		n := throttled(string(stat))
		before, seen := was[dir]
		curbed = curbed || n > before && seen
		q.last[dir] = n
	}
	return curbed || len(q.last) == 0
}

// groups lists the directories, below the root of all groups, in which a quota on this
// process may be: its groups for the processor, and those above them. Within a container
// the uppermost is the container's own.
func groups(text string) []string {
	var dirs []string
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var bases []string
		switch {
		case parts[1] == "": // version 2, or its place beside version 1
			bases = []string{"", "unified"}
		case strings.Contains(","+parts[1]+",", ",cpu,"):
			bases = []string{"cpu", parts[1]}
		}
		for _, base := range bases {
			for dir := filepath.Join("/", parts[2]); ; dir = filepath.Dir(dir) {
				dirs = append(dirs, filepath.Join(base, dir))
				if dir == "/" {
					break
				}
			}
		}
	}
	return dirs
}

// throttled returns how often, by a cpu.stat, a group has used its share up.
func throttled(stat string) uint64 {
	for line := range strings.Lines(stat) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "nr_throttled "); ok {
			n, _ := strconv.ParseUint(text, 10, 64)
			return n
		}
	}
	return 0
}
