package main

import (
	"testing"
	"testing/fstest"
)

func TestE8TheRuntimePlansWithTheMemoryOfTheControlGroup(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no control groups", nil, 0},
		{"version 2, none bounds it", map[string]string{
			"proc/self/cgroup": "0::/system.slice/proxyd.service\n",
			"sys/fs/cgroup/system.slice/proxyd.service/memory.max": "max\n",
		}, 0},
		{"version 2, its own", map[string]string{
			"proc/self/cgroup": "0::/system.slice/proxyd.service\n",
			"sys/fs/cgroup/system.slice/proxyd.service/memory.max": "1000000\n",
		}, 900000},
		{"version 2, where it is slowed down", map[string]string{
			"proc/self/cgroup": "0::/system.slice/proxyd.service\n",
			"sys/fs/cgroup/system.slice/proxyd.service/memory.max":  "1000000\n",
			"sys/fs/cgroup/system.slice/proxyd.service/memory.high": "800000\n",
		}, 720000},
		{"version 2, one around it allows less", map[string]string{
			"proc/self/cgroup":                                     "0::/system.slice/proxyd.service\n",
			"sys/fs/cgroup/system.slice/memory.max":                "500000\n",
			"sys/fs/cgroup/system.slice/proxyd.service/memory.max": "1000000\n",
		}, 450000},
		{"in a container, whose root is the group", map[string]string{
			"proc/self/cgroup":         "0::/\n",
			"sys/fs/cgroup/memory.max": "1000000\n",
		}, 900000},
		{"version 1", map[string]string{
			"proc/self/cgroup": "12:cpu,cpuacct:/a\n7:memory:/docker/abc\n0::/\n",
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "1000000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":            "9223372036854771712\n",
		}, 900000},
		{"version 1, none bounds it", map[string]string{
			"proc/self/cgroup":                           "7:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
	} {
		files := fstest.MapFS{}
		for name, text := range c.files {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := memoryLimit(files); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
