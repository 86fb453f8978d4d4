package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopPatience is how long a node may take to end after SIGTERM.
const stopPatience = 20 * time.Second

// On does what a script asks for by `on HOST VERB`, and returns what it printed. The verbs
// are those of deploy/vagrant/drills/README.md.
func (s *Stage) On(ctx context.Context, host, verb string, args ...string) (string, error) {
	h := s.named(host)
	if h == nil {
		return "", fmt.Errorf("on %s: there is no such host", host)
	}
	if f, ok := hostVerbs[verb]; ok {
		return "", f(h)
	}
	switch verb {
	case "run":
		return h.run(ctx, args...)
	case "lose":
		return "", h.loseShare(args)
	}
	n := s.Node(host)
	if n == nil {
		return "", fmt.Errorf("on %s: %q is no verb, or only one for a host with proxyd", host, verb)
	}
	switch verb {
	case "file":
		return n.Config + "\n", nil
	case "hactl":
		return h.run(ctx, append([]string{filepath.Join(filepath.Dir(s.lab), "hactl"), "--socket", n.Socket}, args...)...)
	}
	if f, ok := nodeVerbs[verb]; ok {
		return "", f(n)
	}
	return "", fmt.Errorf("on %s: there is no verb %q", host, verb)
}

var hostVerbs = map[string]func(*Host) error{
	"cut":       (*Host).Cut,
	"uncut":     (*Host).Uncut,
	"silence":   (*Host).Silence,
	"unsilence": (*Host).Unsilence,
	"isolate":   func(h *Host) error { return h.Isolate(true) },
	"join":      func(h *Host) error { return h.Isolate(false) },
	"deafen":    (*Host).Deafen,
	"mute":      (*Host).Mute,
	"hear":      func(h *Host) error { return h.Lose(Loss{}) },
	"speak":     func(h *Host) error { return h.Lose(Loss{}) },
}

var nodeVerbs = map[string]func(*Node) error{
	"kill":     (*Node).Kill,
	"start":    (*Node).Start,
	"stop":     func(n *Node) error { return n.Stop(stopPatience) },
	"freeze":   (*Node).Freeze,
	"thaw":     (*Node).Thaw,
	"poweroff": (*Node).powerOff,
	"poweron":  (*Node).powerOn,
}

// powerOff takes the link away first: a host without power sends no FIN.
func (n *Node) powerOff() error { return errors.Join(n.Cut(), n.Kill()) }

func (n *Node) powerOn() error { return errors.Join(n.Uncut(), n.Start()) }

// loseShare reads `lose PERCENT [from|to]`.
func (h *Host) loseShare(args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return errors.New("lose: want PERCENT [from|to]")
	}
	share, err := strconv.Atoi(args[0])
	if err != nil || share < 0 || share > 100 {
		return fmt.Errorf("lose %s: want 0 to 100", args[0])
	}
	loss := Loss{From: share, To: share}
	if len(args) == 2 {
		switch args[1] {
		case "from":
			loss.To = 0
		case "to":
			loss.From = 0
		default:
			return fmt.Errorf("lose %s %s: want from or to", args[0], args[1])
		}
	}
	return h.Lose(loss)
}

func (s *Stage) named(host string) *Host {
	i := slices.IndexFunc(s.hosts, func(h *Host) bool { return h.Name == host })
	if i < 0 {
		return nil
	}
	return s.hosts[i]
}

// run runs a program on the host and returns what it printed.
func (h *Host) run(ctx context.Context, argv ...string) (string, error) {
	if len(argv) == 0 {
		return "", errors.New("run: want a program")
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := h.Do(cmd.Start); err != nil {
		return "", fmt.Errorf("on %s: run %s: %w", h.Name, argv[0], err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("on %s: run %s: %w: %s", h.Name, strings.Join(argv, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out.String(), nil
}
