package vip

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Sysctls sets the kernel parameters without which an address cannot be held safely, and
// remembers what they were. Its zero value is ready for use. A process that is killed
// restores nothing: the parameters are then those that its next life wants as well.
type Sysctls struct {
	mu  sync.Mutex
	old []parameter // as they were, in the order in which they were changed
}

// A parameter is a path below /proc/sys and its value.
type parameter struct{ path, value string }

// Global lets listeners bind addresses that are not here yet, so that a takeover
// touches no listener.
func (s *Sysctls) Global() error {
	err := s.set("net/ipv4/ip_nonlocal_bind", "1")
	six := s.set("net/ipv6/ip_nonlocal_bind", "1")
	if errors.Is(six, fs.ErrNotExist) {
		six = nil // a kernel without IPv6
	}
	return errors.Join(err, six)
}

// Interface makes the interface answer ARP only for addresses that it has itself
// (arp_ignore), and ask only in the name of those (arp_announce): an address parked on
// loopback is silent with these, and would answer without.
func (s *Sysctls) Interface(name string) error {
	conf := "net/ipv4/conf/" + name
	return errors.Join(
		s.set(conf+"/arp_ignore", "1", "2"),
		s.set(conf+"/arp_announce", "2"),
	)
}

// Restore sets everything back that was changed, the last change first. What vanished
// with its interface is no error.
func (s *Sysctls) Restore() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(s.old) {
		if err := p.write(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	s.old = nil
	return errors.Join(errs...)
}

// set gives the parameter at path the first of the values, unless it has one of them.
func (s *Sysctls) set(path string, values ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := os.ReadFile(filepath.Join("/proc/sys", path))
	if err != nil {
		return fmt.Errorf("read kernel parameter %s: %w", dotted(path), err)
	}
	was := strings.TrimSpace(string(b))
	if slices.Contains(values, was) {
		return nil
	}
	if err := (parameter{path, values[0]}).write(); err != nil {
		return err
	}
	known := func(p parameter) bool { return p.path == path }
	if !slices.ContainsFunc(s.old, known) { // else an interface that was made anew
		s.old = append(s.old, parameter{path, was})
	}
	return nil
}

func (p parameter) write() error {
	f, err := os.OpenFile(filepath.Join("/proc/sys", p.path), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(p.value)
		err = errors.Join(err, f.Close())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		err = fmt.Errorf("%w (/proc/sys is read-only: a container, or ProtectKernelTunables= in the unit)", err)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w (needs root, or CAP_NET_ADMIN in the network namespace's own user namespace)", err)
	}
	return fmt.Errorf("set kernel parameter %s = %s: %w", dotted(p.path), p.value, err)
}

// dotted returns the name by which sysctl(8) knows a path. An interface's name may hold
// dots itself, which sysctl writes as slashes.
func dotted(path string) string {
	return strings.NewReplacer("/", ".", ".", "/").Replace(path)
}
