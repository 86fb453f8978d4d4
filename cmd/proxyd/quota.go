package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A quota watches the control groups that this process is in for a bound on the processor
// time that it may use.
type quota struct {
	self, root string        // /proc/self/cgroup and /sys/fs/cgroup, if not in a test
	rests      func() uint64 // how often the process has rested by itself to keep to a quota

	mu     sync.Mutex // guards what follows
	last   map[string]uint64
	rested uint64
}

func newQuota(rests func() uint64) *quota {
	return &quota{self: "/proc/self/cgroup", root: "/sys/fs/cgroup", rests: rests}
}

// watchEvery is how often a quota is read again: whoever runs a container may change it.
const watchEvery = 5 * time.Second

// watch tells of the quota, and of each change, until ctx ends.
func (q *quota) watch(ctx context.Context, log *slog.Logger, tell func(quota, period time.Duration)) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var quota, period time.Duration
	for {
		if t, p := q.bound(); t != quota || p != period {
			quota, period = t, p
			tell(quota, period)
			log.Info("the quota on processor time is used evenly", "quota", quota, "period", period)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// bound returns the tightest quota, of so much time in each period; 0 if there is none.
func (q *quota) bound() (time, period time.Duration) {
	for _, dir := range q.groups() {
		t, p := readBound(filepath.Join(q.root, dir))
		if t > 0 && p > 0 && (period == 0 || t.Seconds()/p.Seconds() < time.Seconds()/period.Seconds()) {
			time, period = t, p
		}
	}
	return time, period
}

// readBound returns the quota of a group of either version; 0 if it has none.
func readBound(dir string) (quota, period time.Duration) {
	text, err := os.ReadFile(filepath.Join(dir, "cpu.max"))
	if err != nil {
		used, err := os.ReadFile(filepath.Join(dir, "cpu.cfs_quota_us"))
		if err != nil {
			return 0, 0
		}
		each, err := os.ReadFile(filepath.Join(dir, "cpu.cfs_period_us"))
		if err != nil {
			return 0, 0
		}
		text = append(append(used, ' '), each...)
	}
	parts := strings.Fields(string(text))
	if len(parts) != 2 {
		return 0, 0
	}
	n, err := strconv.ParseInt(parts[0], 10, 64)
	each, bad := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || bad != nil || n <= 0 || each <= 0 { // "max", or -1
		return 0, 0
	}
	return time.Duration(n) * time.Microsecond, time.Duration(each) * time.Microsecond
}

// Curbed reports whether a quota has held this process back since the call before: by
// stopping it, or because it rested by itself before that. If nothing can be found out, it
// may have.
func (q *quota) Curbed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	dirs := q.groups()
	if dirs == nil {
		return true
	}
	rests := q.rests()
	curbed := rests > q.rested
	q.rested = rests
	was := q.last
	q.last = map[string]uint64{}
	for _, dir := range dirs {
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
// the uppermost is the container's own. nil: it cannot be known.
func (q *quota) groups() []string {
	text, err := os.ReadFile(q.self)
	if err != nil {
		return nil
	}
	dirs := []string{}
	for line := range strings.Lines(string(text)) {
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
