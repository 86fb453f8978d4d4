package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// run runs the program with the event as arguments (type, VIP, state, reason), as
// PROXYD_* in the environment, and as JSON on standard input. When it takes too long its
// whole process group is killed.
func run(ctx context.Context, program string, e Event, body []byte) error {
	cmd := exec.CommandContext(ctx, program, e.Type, e.VIP, string(e.State), e.Reason)
	cmd.Stdin = bytes.NewReader(body)
	said := &tail{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Env = append(os.Environ(), "PROXYD_TYPE="+e.Type, "PROXYD_VIP="+e.VIP, "PROXYD_ADDRESS="+e.Address,
		"PROXYD_STATE="+string(e.State), "PROXYD_REASON="+e.Reason, "PROXYD_TEXT="+e.Text, "PROXYD_FROM="+e.From, "PROXYD_TO="+e.To,
		"PROXYD_TERM="+strconv.FormatUint(e.Term, 10), "PROXYD_NODE="+e.Node, "PROXYD_CLUSTER="+e.Cluster, "PROXYD_TIME="+e.Time.Format(time.RFC3339Nano))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for what left the group and keeps the output open
	if err := cmd.Run(); err != nil {
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			err = errors.New("was killed because proxyd ends")
		case ctx.Err() != nil:
			err = fmt.Errorf("took longer than %v and was killed", patience)
		}
		if text := said.String(); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return fmt.Errorf("command %s: %w", program, err)
	}
	return nil
}

// A tail keeps the end of what is written to it.
type tail struct{ b []byte }

const maxTail = 300

func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	t.b = t.b[max(len(t.b)-maxTail, 0):]
	return len(b), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }

// post sends the event as JSON. Any 2xx is an answer; redirects are not followed.
func post(ctx context.Context, to string, _ Event, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("webhook: %w", withoutURL(err))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "proxyd")
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("webhook: %w", withoutURL(err))
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("webhook: answered %s", resp.Status)
	}
	return nil
}

// withoutURL takes the URL out of an error: tokens are often part of it.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
