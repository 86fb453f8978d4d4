package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAQuotaIsNoticedInEveryGroupAbove(t *testing.T) {
	for _, c := range []struct{ name, self, stat string }{
		{"version 2", "0::/system.slice/proxyd.service\n", "system.slice/proxyd.service"},
		{"version 2, above", "0::/system.slice/proxyd.service\n", "system.slice"},
		{"version 2, in a container", "0::/\n", ""},
		{"version 1", "4:cpu,cpuacct:/docker/1\n", "cpu/docker/1"},
		{"version 1, one link", "4:cpu,cpuacct:/docker/1\n", "cpu,cpuacct/docker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &quota{self: filepath.Join(t.TempDir(), "self"), root: t.TempDir()}
			stat := filepath.Join(q.root, c.stat, "cpu.stat")
			if err := os.MkdirAll(filepath.Dir(stat), 0o700); err != nil {
				t.Fatal(err)
			}
			tell := func(file, text string) {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tell(q.self, c.self)
			var got [4]bool
			for i, n := range []string{"7", "7", "9", "9"} {
				tell(stat, "nr_periods 50\nnr_throttled "+n+"\nthrottled_usec 1\n")
				got[i] = q.Curbed()
			}
			if want := [4]bool{false, false, true, false}; got != want {
				t.Errorf("curbed %v, want %v", got, want)
			}
		})
	}
}

func TestAQuotaThatCannotBeSeenMayBeThere(t *testing.T) {
	q := &quota{self: filepath.Join(t.TempDir(), "none"), root: t.TempDir()}
	if !q.Curbed() {
		t.Error("not curbed, though nothing is known")
	}
}
