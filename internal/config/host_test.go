package config

import (
	"io/fs"
	"os"
	"testing/fstest"
)

// testHost is a machine named "edge-1" with a good secret at /etc/proxyd/cluster.key,
// some bad ones beside it, and the variables KEY and SHORT.
func testHost() Host {
	files := fstest.MapFS{
		"etc/proxyd/cluster.key": {Data: []byte("  correct horse battery staple\n"), Mode: 0o600},
		"etc/proxyd/group.key":   {Data: []byte("correct horse battery staple"), Mode: 0o640},
		"etc/proxyd/open.key":    {Data: []byte("correct horse battery staple"), Mode: 0o644},
		"etc/proxyd/short.key":   {Data: []byte("fifteen chars..   \n"), Mode: 0o600},
		"etc/proxyd/sorry.html":  {Data: []byte("<p>Sorry."), Mode: 0o644},
		"etc/proxyd/huge.txt":    {Data: make([]byte, 1<<20+1), Mode: 0o644},
		"etc/proxyd/dir.key":     {Mode: fs.ModeDir | 0o700},
		"etc/proxyd/dir.html":    {Mode: fs.ModeDir | 0o700},
	}
	env := map[string]string{"KEY": " correct horse battery staple ", "SHORT": "short"}
	name := func(s string) string { return s[1:] }
	return Host{
		Hostname: func() (string, error) { return "edge-1", nil },
		Getenv:   func(s string) string { return env[s] },
		Stat:     func(s string) (fs.FileInfo, error) { return files.Stat(name(s)) },
		ReadFile: func(s string) ([]byte, error) { return files.ReadFile(name(s)) },
		Glob:     func(string) ([]string, error) { return nil, nil },
	}
}

func mustRead(name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return data
}
