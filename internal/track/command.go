package track

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"proxyd/internal/config"
)

// afterglow is how long what a command left behind may keep its output open.
const afterglow = 100 * time.Millisecond

// run runs the command of c in a process group of its own, which is killed as a whole when
// the time is over, and when the command has ended and left something behind. It knows
// nothing of this process but PATH: secrets may be in the environment.
func run(ctx context.Context, c *config.Track) string {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Command[0], c.Command[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PROXYD_TRACK=" + c.Name}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = afterglow
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return fmt.Sprintf("cannot be run: %v", err)
	}
	ended(cmd.Process.Pid)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	_ = cmd.Wait()                                      // ProcessState says it all
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && !cmd.ProcessState.Success():
		return fmt.Sprintf("did not end within %v%s", c.Timeout, said.first())
	case cmd.ProcessState.Success():
		return ""
	}
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return fmt.Sprintf("ended by signal %d (%v)%s", s.Signal(), s.Signal(), said.first())
	}
	return fmt.Sprintf("exit code %d%s", cmd.ProcessState.ExitCode(), said.first())
}

// ended waits until a child has ended and leaves it unreaped: until it is waited for, its
// number is nobody else's.
func ended(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			return
		}
	}
}

const (
	maxOutput = 4 << 10 // of a command that is looked at; the rest is read and dropped
	maxReason = 200     // of its first line that is kept, in bytes
)

// output keeps the beginning of what a command prints.
type output []byte

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	*o = append(*o, b[:min(len(b), maxOutput-len(*o))]...)
	return len(b), nil
}

// first is the first line that says something, behind a colon.
func (o output) first() string {
	for line := range strings.Lines(strings.ToValidUTF8(string(o), "?")) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, line))
		if line == "" {
			continue
		}
		for len(line) > maxReason {
			_, size := utf8.DecodeLastRuneInString(line)
			line = line[:len(line)-size]
		}
		return ": " + line
	}
	return ""
}
