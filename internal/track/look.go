package track

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"proxyd/internal/config"
)

// looker returns the function that looks at what c names once. What that returns is why it
// is not good, "" if it is.
func (s *Set) looker(c *config.Track) func(context.Context) string {
	switch {
	case s.look != nil:
		return func(ctx context.Context) string { return s.look(ctx, c) }
	case len(c.Command) > 0:
		return func(ctx context.Context) string { return run(ctx, c) }
	case c.File != "":
		return func(context.Context) string { return present(c.File) }
	case filepath.IsAbs(c.Process):
		return func(context.Context) string { return numbered("/proc", c.Process) }
	case c.Process != "":
		p := &process{proc: "/proc", name: c.Process}
		return func(context.Context) string { return p.look() }
	case c.Interface != "":
		return func(context.Context) string { return carries(c.Interface) }
	}
	return func(context.Context) string { return s.Pool(c.Pool) }
}

// target is what c looks at.
func target(c *config.Track) string {
	return strings.Join(append([]string{c.File, c.Process, c.Interface, c.Pool}, c.Command...), "\x00")
}

// present looks at a file.
func present(name string) string {
	switch _, err := os.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return name + " is not there"
	case err != nil:
		return err.Error()
	}
	return ""
}

// carries looks at a network interface of this host.
func carries(name string) string {
	i, err := net.InterfaceByName(name)
	switch {
	case err != nil:
		return fmt.Sprintf("interface %s is not there", name)
	case i.Flags&net.FlagUp == 0:
		return fmt.Sprintf("interface %s is down", name)
	case i.Flags&net.FlagRunning == 0:
		return fmt.Sprintf("interface %s has no carrier", name)
	}
	return ""
}

// maxPIDFile bounds the file with the number of a process.
const maxPIDFile = 64

// numbered looks at the process whose number is in a file.
func numbered(proc, file string) string {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return file + " is not there"
	} else if err != nil {
		return err.Error()
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:min(len(text), maxPIDFile)])))
	if err != nil || pid <= 0 {
		return file + " has no number of a process"
	}
	if !lives(proc, strconv.Itoa(pid)) {
		return fmt.Sprintf("process %d of %s does not run", pid, file)
	}
	return ""
}

// A process finds one by its name. Where it was found last it is looked for first: a host
// has thousands.
type process struct {
	proc string
	name string
	last string
}

func (p *process) look() string {
	if p.last != "" && p.is(p.last) {
		return ""
	}
	all, err := os.ReadDir(p.proc)
	if err != nil {
		return err.Error()
	}
	for _, e := range all {
		if pid := e.Name(); pid[0] >= '1' && pid[0] <= '9' && p.is(pid) {
			p.last = pid
			return ""
		}
	}
	return "no process " + p.name + " runs"
}

// commLen is how much of a name the kernel keeps.
const commLen = 15

// is reports whether a process has the name: exactly, and one that is too long for the
// kernel in its command line.
func (p *process) is(pid string) bool {
	comm, err := os.ReadFile(filepath.Join(p.proc, pid, "comm"))
	if err != nil || string(bytes.TrimSuffix(comm, []byte("\n"))) != p.name[:min(len(p.name), commLen)] || !lives(p.proc, pid) {
		return false
	}
	if len(p.name) <= commLen {
		return true
	}
	line, err := os.ReadFile(filepath.Join(p.proc, pid, "cmdline"))
	program, _, _ := bytes.Cut(line, []byte{0})
	return err == nil && filepath.Base(string(program)) == p.name
}

// lives reports whether a process runs and is no zombie. The state is what stands behind
// the name in brackets, which may have brackets itself.
func lives(proc, pid string) bool {
	stat, err := os.ReadFile(filepath.Join(proc, pid, "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat[max(bytes.LastIndexByte(stat, ')'), 0):], []byte(" "))
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}
