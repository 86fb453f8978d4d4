package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of times in /proc on every Linux that Go runs on.
const ticksPerSecond = 100

// A procStat is what the lab reads of /proc/PID/stat.
type procStat struct {
	group int
	ticks int64 // user and system time, of children that were waited for as well
}

func parseStat(line string) (procStat, error) {
	// The name is in parentheses and may hold anything, so count from its end (proc(5)).
	_, rest, ok := strings.Cut(line[max(strings.LastIndexByte(line, ')'), 0):], " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 15 {
		return procStat{}, fmt.Errorf("process status %q is cut short", line)
	}
	var s procStat
	var err, bad error
	if s.group, err = strconv.Atoi(f[2]); err != nil {
		bad = err
	}
	for _, field := range f[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			bad = err
		}
		s.ticks += n
	}
	if bad != nil {
		return procStat{}, fmt.Errorf("process status %q: %w", line, bad)
	}
	return s, nil
}

// A Usage is what a process group has used.
type Usage struct {
	CPU      time.Duration // user and system
	Resident int64         // bytes now, pages shared by several processes counted in part
}

// usage sums up all processes of a group: a proxy with its workers.
func usage(group int) (Usage, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	found := false
	for _, dir := range dirs {
		line, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has just ended
		}
		s, err := parseStat(string(line))
		if err != nil {
			return Usage{}, err
		}
		if s.group != group {
			continue
		}
		found = true
		u.CPU += time.Duration(s.ticks) * time.Second / ticksPerSecond
		n, err := resident(dir)
		if err != nil {
			return Usage{}, err
		}
		u.Resident += n
	}
	if !found {
		return Usage{}, fmt.Errorf("process group %d has no process", group)
	}
	return u, nil
}

// resident returns a process's proportional share of memory in bytes.
func resident(dir string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 {
		return 0, nil // it has just ended
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n * 1024, err
		}
	}
	return 0, fmt.Errorf("%s/smaps_rollup says no Pss", dir)
}

// taken is what the threads of a process took since it began.
type taken struct {
	cpu      time.Duration
	switches uint64
}

// takenBy sums up the threads of a process by the scheduler's own clock: ticks of a
// hundredth of a second miss what is awake for microseconds.
func takenBy(pid int) (t taken, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err == nil && len(threads) == 0 {
		err = fmt.Errorf("process %d: no thread has a schedstat", pid)
	}
	if err != nil {
		return t, err
	}
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		var run, wait, slices uint64
		if _, err := fmt.Sscan(string(b), &run, &wait, &slices); err != nil {
			return t, fmt.Errorf("%s says %q: %w", file, b, err)
		}
		t.cpu += time.Duration(run)
		t.switches += slices
	}
	return t, nil
}
