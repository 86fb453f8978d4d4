package track

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"proxyd/internal/config"
)

func TestWhatACommandSays(t *testing.T) {
	sh := func(line string) config.Command { return config.Command{"/bin/sh", "-c", line} }
	tests := []struct {
		name    string
		command config.Command
		want    string
	}{
		{"good", config.Command{"/bin/true"}, ""},
		{"failed", config.Command{"/bin/false"}, "exit code 1"},
		{"its first line is the reason", sh("echo; echo no route >&2; echo more; exit 3"), "exit code 3: no route"},
		{"good though it talks", sh("echo fine"), ""},
		{"no such program", config.Command{"/nowhere/at/all"}, "cannot be run: fork/exec /nowhere/at/all: no such file or directory"},
		{"a signal", sh("kill -9 $$"), "ended by signal 9 (killed)"},
		{"control characters", sh(`printf 'a\033[31mb\n'; exit 1`), "exit code 1: a [31mb"},
		{"its name is told", sh("echo $PROXYD_TRACK; exit 1"), "exit code 1: uplink"},
		{"secrets are not", sh("echo .$SECRET_OF_THE_TEST; exit 1"), "exit code 1: ."},
		{"a long line", sh("head -c 3000 /dev/zero | tr '\\0' x; exit 1"), "exit code 1: " + strings.Repeat("x", maxReason)},
	}
	t.Setenv("SECRET_OF_THE_TEST", "word")
	for _, test := range tests {
		got := run(t.Context(), &config.Track{Name: "uplink", Command: test.command, Timeout: 10 * time.Second})
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// What a command started ends with it: when its time is over, and when it has ended.
func TestACommandLeavesNothingBehind(t *testing.T) {
	for name, line := range map[string]string{
		"it hangs":               "sleep 1000 & echo $! > %s; echo slow; wait",
		"it left something":      "sleep 1000 & echo $! > %s; exit 0",
		"it failed, and left it": "sleep 1000 & echo $! > %s; exit 1",
	} {
		file := filepath.Join(t.TempDir(), "pid")
		c := &config.Track{Command: config.Command{"/bin/sh", "-c", fmt.Sprintf(line, file)}, Timeout: 2 * time.Second}
		why := run(t.Context(), c)
		if want := "did not end within 2s: slow"; name == "it hangs" && why != want {
			t.Errorf("%s: %q, want %q", name, why, want)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		pid := strings.TrimSpace(string(text))
		for tries := 0; lives("/proc", pid); tries++ { // it was killed; the kernel has yet to see to it
			if tries == 200 {
				t.Errorf("%s: process %s still lives", name, pid)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func TestACommandEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	run(ctx, &config.Track{Command: config.Command{"/bin/sleep", "1000"}, Timeout: time.Minute})
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAFileIsThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ready")
	if got := present(file); got != file+" is not there" {
		t.Errorf("%q", got)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := present(file); got != "" {
		t.Errorf("%q", got)
	}
	if got := present(file + "/more"); !strings.Contains(got, "not a directory") {
		t.Errorf("%q", got)
	}
}

func TestAnInterfaceIsUp(t *testing.T) {
	if got := carries("nowhere0"); got != "interface nowhere0 is not there" {
		t.Errorf("%q", got)
	}
	if got := carries("lo"); got != "" && !strings.Contains(got, "is down") {
		t.Errorf("%q", got)
	}
}

// host makes a /proc with these processes: number, name as the kernel keeps it, command
// line and state.
func host(t *testing.T, all ...[4]string) string {
	proc := t.TempDir()
	for _, p := range all {
		dir := filepath.Join(proc, p[0])
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"comm": p[1] + "\n", "cmdline": strings.ReplaceAll(p[2], " ", "\x00") + "\x00", "stat": p[0] + " (" + p[1] + ") " + p[3] + " 1 1",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return proc
}

func TestAProcessIsFoundByItsName(t *testing.T) {
	proc := host(t,
		[4]string{"1", "init", "/sbin/init", "S"},
		[4]string{"20", "chronyd", "/usr/sbin/chronyd -d", "S"},
		[4]string{"21", "bird", "/usr/sbin/bird", "Z"},
		[4]string{"22", "a) Z (b", "odd", "R"},
		[4]string{"23", "keepalived-long", "/usr/bin/keepalived-longer -x", "S"},
	)
	for name, found := range map[string]bool{
		"chronyd": true, "chrony": false, "chronyd2": false, "bird": false, "a) Z (b": true,
		"keepalived-longer": true, "keepalived-longest": false, "keepalived-long": true,
	} {
		p := &process{proc: proc, name: name}
		for range 2 { // the second time by where it was found
			if got := p.look(); (got == "") != found {
				t.Errorf("%s: %q, want found %t", name, got, found)
			}
		}
	}
	p := &process{proc: proc, name: "chronyd"}
	p.look()
	if err := os.RemoveAll(filepath.Join(proc, "20")); err != nil {
		t.Fatal(err)
	}
	if got := p.look(); got != "no process chronyd runs" {
		t.Errorf("when it has ended: %q", got)
	}
}

func TestAProcessIsFoundByItsNumber(t *testing.T) {
	proc := host(t, [4]string{"20", "chronyd", "chronyd", "S"}, [4]string{"21", "bird", "bird", "Z"})
	file := filepath.Join(t.TempDir(), "pid")
	if got := numbered(proc, file); got != file+" is not there" {
		t.Errorf("%q", got)
	}
	for text, want := range map[string]string{
		"20\n": "", "21": "process 21 of " + file + " does not run", "22": "process 22 of " + file + " does not run",
		"": file + " has no number of a process", "-1": file + " has no number of a process", "../20": file + " has no number of a process",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := numbered(proc, file); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestThisProcessLives(t *testing.T) {
	if !lives("/proc", strconv.Itoa(os.Getpid())) {
		t.Error("this process does not run")
	}
}

func FuzzTheFirstLine(f *testing.F) {
	f.Add([]byte("no route\n"))
	f.Add([]byte("\n\t \xff\x00\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o output
		for i := 0; i < len(b); i += 100 {
			if n, err := o.Write(b[i:min(i+100, len(b))]); err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		line := o.first()
		if len(o) > maxOutput || len(line) > maxReason+2 || strings.ContainsAny(line, "\n\x00\x1b") {
			t.Errorf("%d bytes kept, first line %q", len(o), line)
		}
	})
}
