package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// insideEnv marks the second life of a lab that was started without root.
const insideEnv = "PROXYD_LAB_USERNS"

// Privileged reports whether this process may make network namespaces.
func Privileged() bool { return mayUnshare() == nil }

// mayUnshare tries it on a thread that is thrown away.
func mayUnshare() error {
	tried := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		tried <- unix.Unshare(unix.CLONE_NEWNET)
	}()
	return <-tried
}

// InUserNamespace reports whether this is a lab that runs without root.
func InUserNamespace() bool { return os.Getenv(insideEnv) != "" }

// RunInUserNamespace runs this program again, with the same arguments, as root of a user
// namespace of its own, and returns its exit code.
func RunInUserNamespace() (code int, err error) {
	if InUserNamespace() {
		return 0, fmt.Errorf("make a network namespace in a user namespace: %w", mayUnshare())
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// The terminal sends Ctrl-C to both. The inner one cleans up; this one waits for it.
	// Other signals are passed on.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	runtime.LockOSThread() // Pdeathsig is about the thread that starts the process
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(context.Background(), self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("without root a user namespace is needed, and this kernel refuses one (run as root, or allow unprivileged user namespaces): %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGINT {
				_ = cmd.Process.Signal(sig) // it may just have ended
			}
		case err := <-ended:
			var exit *exec.ExitError
			if err == nil || errors.As(err, &exit) {
				return cmd.ProcessState.ExitCode(), nil
			}
			return 0, err
		}
	}
}

// Withheld lists what the kernel refuses to this process of what proxyd would use, a
// sentence each.
func Withheld() []string {
	var out []string
	if err := tryBPF(); err != nil {
		out = append(out, fmt.Sprintf("BPF (%v): no fence in the kernel; a dead or frozen holder keeps its address until the address's lifetime ends", err))
	}
	if err := tryRealtime(); err != nil {
		out = append(out, fmt.Sprintf("real-time scheduling (%v): heartbeats wait for the CPU like everything else", err))
	}
	return out
}

// tryBPF makes the smallest map there is and closes it.
func tryBPF() error {
	attr := struct{ kind, key, value, entries, flags uint32 }{unix.BPF_MAP_TYPE_HASH, 4, 8, 1, 0}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// tryRealtime asks for a real-time priority on a thread that is thrown away.
func tryRealtime() error {
	tried := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		tried <- unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	}()
	return <-tried
}
