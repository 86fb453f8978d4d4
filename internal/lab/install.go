package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// policyFile says to Debian's packages whether they may start services when installed.
const policyFile = "/usr/sbin/policy-rc.d"

// Install fetches those of the named Debian packages whose program of the same name is not
// there. Their services are not started.
func Install(ctx context.Context, names []string, out io.Writer) (err error) {
	var absent []string
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			absent = append(absent, n)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("not there: %s; install them, or run as root on Debian", strings.Join(absent, ", "))
	}
	f, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	switch {
	case err == nil:
		defer func() { err = errors.Join(err, os.Remove(policyFile)) }()
		_, err = f.WriteString("#!/bin/sh\nexit 101\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("keep services from starting: %w", err)
		}
	case !errors.Is(err, os.ErrExist): // one that is there belongs to the host's owner
		return fmt.Errorf("keep services from starting: %w", err)
	}
	fmt.Fprintln(out, "installing", strings.Join(absent, ", "))
	install := append([]string{"install", "-y", "-q", "--no-install-recommends"}, absent...)
	if _, err := aptGet(ctx, install...); err == nil {
		return nil
	}
	// A new machine has no list of packages, or an old one.
	if log, err := aptGet(ctx, "update", "-q"); err != nil {
		return fmt.Errorf("fetch the list of packages: %w\n%s", err, log)
	}
	if log, err := aptGet(ctx, install...); err != nil {
		return fmt.Errorf("install %s: %w\n%s", strings.Join(absent, ", "), err, log)
	}
	return nil
}

// aptGet runs apt-get, which asks nothing, and returns what it printed.
func aptGet(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd.CombinedOutput()
}
