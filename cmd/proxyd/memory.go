package main

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// memoryShare is how much of the memory that this process may have the runtime plans with.
// The rest is for what it does not see: stacks of the kernel's, pages of the binary.
const memoryShare = 0.9

// memoryLimit returns what the runtime is to plan with (E8): memoryShare of the least that
// a control group around this process allows. It is 0 if none bounds it. files is the
// root of the file system.
func memoryLimit(files fs.FS) int64 {
	groups, err := fs.ReadFile(files, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	least := uint64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		// "0::/path" of version 2, "7:memory:/path" of version 1.
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, dir, _ := strings.Cut(rest, ":")
		root, limits := "sys/fs/cgroup", []string{"memory.max", "memory.high"}
		switch {
		case id == "0" && controllers == "":
		case strings.Contains(","+controllers+",", ",memory,"):
			root, limits = "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}
		default:
			continue
		}
		// Within a container the path may be the host's, and the files those of the root.
		for dir = path.Clean("/" + dir); ; dir = path.Dir(dir) {
			for _, name := range limits {
				text, err := fs.ReadFile(files, path.Join(root, dir, name))
				if err != nil {
					continue
				}
				if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // else "max"
					least = min(least, n)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	if least >= math.MaxInt64>>1 { // version 1 says "none" by a number as large as it has
		return 0
	}
	return int64(float64(least) * memoryShare)
}
