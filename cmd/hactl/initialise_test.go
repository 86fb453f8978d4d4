package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"proxyd/internal/config"
)

func TestInitWritesWhatRuns(t *testing.T) {
	dir := t.TempDir()
	data := config.TemplateData{
		Node: "edge-1", Join: []string{"10.0.0.11", "10.0.0.12"}, VIP: "10.0.0.100/24", Interface: "eth0",
		To: []string{"10.0.1.5:8080"},
	}
	var said strings.Builder
	if err := initialise(&said, dir, data, false); err != nil {
		t.Fatal(err)
	}
	file, key := filepath.Join(dir, "proxyd.toml"), filepath.Join(dir, "cluster.key")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(file, text)
	if err != nil {
		t.Fatalf("what init wrote is refused: %v", err)
	}
	if len(c.Cluster.Join) != 2 || c.VIP["public"] == nil && len(c.VIP) != 1 {
		t.Errorf("what init wrote has join %v and VIPs %v", c.Cluster.Join, c.VIP)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v; want mode 0600", info, err)
	}
	if !strings.Contains(said.String(), "scp "+file+" "+key) {
		t.Errorf("init does not say what the second host needs:\n%s", &said)
	}
	before, _ := os.ReadFile(key)
	if err := initialise(io.Discard, dir, data, false); exitCode(err) != exitRefused {
		t.Errorf("init over existing files = %v, want it refused", err)
	}
	if after, _ := os.ReadFile(key); string(after) != string(before) {
		t.Error("a refused init changed the key")
	}
}

func TestInitRefusesBadFlagsAndWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	err := initialise(io.Discard, dir, config.TemplateData{Join: []string{"not an address"}, VIP: "10.0.0.1/24", Interface: "eth0"}, false)
	if exitCode(err) != exitUsage || !strings.Contains(err.Error(), "not an address") {
		t.Errorf("init --join 'not an address' = %v, want a usage error that names it", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a refused init left %s: %v", dir, err)
	}
}
