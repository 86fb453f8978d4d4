package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process runs in the namespace of a host, in a process group of its own. It dies when
// its host or the lab does.
type Process struct {
	name string
	cmd  *exec.Cmd // nil of one that the lab did not start
	pid  int
	pgid int           // its process group
	out  *os.File      // its output, or nil
	done chan struct{} // closed when it has ended and was reaped

	mu     sync.Mutex
	reaped bool // its number may belong to another process from now on
	err    error
}

// command describes a process that shall be started.
type command struct {
	name string // for messages
	argv []string
	env  []string // besides the lab's own
	log  string   // file that gets what it prints; "" for none
	pipe bool     // its standard output is read by stdout instead
}

// start must run on the thread of the host's namespace: that thread's end is what kills
// the process.
func start(c command) (*Process, *os.File, error) {
	p := &Process{name: c.name, done: make(chan struct{})}
	p.cmd = exec.Command(c.argv[0], c.argv[1:]...)
	p.cmd.Env = append(os.Environ(), c.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.log != "" {
		f, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("start %s: %w", c.name, err)
		}
		p.out, p.cmd.Stdout, p.cmd.Stderr = f, f, f
	}
	var r, w *os.File
	if c.pipe {
		var err error
		if r, w, err = os.Pipe(); err != nil {
			p.closeOut()
			return nil, nil, fmt.Errorf("start %s: %w", c.name, err)
		}
		p.cmd.Stdout = w
	}
	err := p.cmd.Start()
	if w != nil {
		w.Close()
	}
	if err != nil {
		p.closeOut()
		if r != nil {
			r.Close()
		}
		return nil, nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	p.pid, p.pgid = p.cmd.Process.Pid, p.cmd.Process.Pid
	go p.wait() // ends with the process
	return p, r, nil
}

// adopt returns a process that another of the lab's has started, in its group.
func adopt(name string, pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", name, err)
	}
	pgid, err := unix.Getpgid(pid)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("adopt %s: %w", name, err)
	}
	p := &Process{name: name, pid: pid, pgid: pgid, done: make(chan struct{})}
	go func() { // ends with the process
		defer unix.Close(fd)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		p.mu.Lock()
		p.reaped = true
		p.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

func (p *Process) wait() {
	// Wait without reaping first, so that no signal can reach another process that got
	// the number in between.
	for {
		var info unix.Siginfo
		if unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil) != unix.EINTR {
			break
		}
	}
	p.mu.Lock()
	p.reaped = true
	p.err = p.cmd.Wait()
	p.mu.Unlock()
	p.closeOut()
	close(p.done)
}

func (p *Process) closeOut() {
	if p.out != nil {
		p.out.Close()
	}
}

// PID returns the process's number.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Alive reports whether it has not ended. A frozen process is alive.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Err returns how an ended process ended; nil for exit code 0.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Signal sends sig to the process and its children. One that has ended is left alone.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if err := syscall.Kill(-p.pgid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Kill ends the process at once and waits for its end.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Terminate asks the process to end and kills it after patience.
func (p *Process) Terminate(patience time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.Err()
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM", p.name, patience), p.Kill())
	}
}

// tail returns the last lines of a log file, for an error message.
func tail(file string, lines int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	return fmt.Sprintf("%s:\n  %s", filepath.Base(file), strings.Join(all, "\n  "))
}
