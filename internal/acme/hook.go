package acme

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Hook is a program that makes TXT records: COMMAND present|cleanup NAME VALUE. It
// implements DNS.
type Hook struct{ Command string }

// hookTime bounds one run.
const hookTime = 2 * time.Minute

// Present implements DNS.
func (h *Hook) Present(ctx context.Context, name, value string) error {
	return h.run(ctx, "present", name, value)
}

// Remove implements DNS.
func (h *Hook) Remove(ctx context.Context, name, value string) error {
	return h.run(ctx, "cleanup", name, value)
}

func (h *Hook) run(ctx context.Context, what, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Command, what, name, value)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it started ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s %s did not end within %v", h.Command, what, hookTime)
	}
	if err != nil {
		const most = 300
		text := strings.TrimSpace(string(out[:min(len(out), most)]))
		return fmt.Errorf("%s %s: %w: %s", h.Command, what, err, text)
	}
	return nil
}
