package bpf

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Explain adds to an error of the kernel what it means for whoever runs the node.
func Explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), strings.Contains(err.Error(), "MEMLOCK"):
		if inUserNamespace() {
			return fmt.Errorf("%w (eBPF is not to be had in a user namespace, as of a container without root)", err)
		}
		if missing := missing(); missing != "" {
			return fmt.Errorf("%w (missing %s: run as root, or grant it; systemd: AmbientCapabilities=)", err, missing)
		}
		return fmt.Errorf("%w (not permitted; %s must belong to the user of the service)", err, Root)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w (this kernel, %s, does not have it)", err, release())
	}
	return err
}

// missing names the capabilities for eBPF that this process lacks, "" if none.
func missing() string {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if unix.Capget(&head, &caps[0]) != nil {
		return ""
	}
	has := func(c uint) bool { return caps[c/32].Effective&(1<<(c%32)) != 0 }
	var names []string
	if !has(unix.CAP_BPF) && !has(unix.CAP_SYS_ADMIN) {
		names = append(names, "CAP_BPF")
	}
	if !has(unix.CAP_NET_ADMIN) {
		names = append(names, "CAP_NET_ADMIN")
	}
	return strings.Join(names, " and ")
}

// inUserNamespace reports whether this process is in a user namespace that is not the
// machine's own.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	return err == nil && !(len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295")
}

// release returns the kernel's.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// HaveTCX returns why programs cannot be attached by links that are pinned, or nil.
func HaveTCX() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load a program: %w", Explain(err))
	}
	defer p.Close()
	// The kernel looks for the interface last.
	_, err = link.AttachTCX(link.TCXOptions{Interface: math.MaxInt32, Program: p, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("attach a program by a link (TCX, Linux 6.6): %w", Explain(err))
}
