package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"proxyd/internal/control"
)

// A Node is a host that runs proxyd.
type Node struct {
	*Host
	Config string // its configuration file
	Socket string // its admin socket
	Log    string // what proxyd printed, of all its lives

	binary string
	client *control.Client

	mu      sync.Mutex
	process *Process // nil before the first start
}

// newNode writes the configuration; Start runs it.
func newNode(h *Host, binary, dir string, configuration string) (*Node, error) {
	n := &Node{
		Host:   h,
		Config: filepath.Join(dir, "proxyd.toml"),
		Socket: filepath.Join(dir, "admin.sock"),
		Log:    filepath.Join(dir, "proxyd.log"),
		binary: binary,
	}
	n.client = control.Dial(n.Socket)
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return nil, fmt.Errorf("node %s: %w", h.Name, err)
	}
	if err := os.WriteFile(n.Config, []byte(configuration), 0o600); err != nil {
		return nil, fmt.Errorf("node %s: %w", h.Name, err)
	}
	return n, nil
}

// Start runs proxyd. It does not wait until it serves.
func (n *Node) Start() error {
	if n.Alive() {
		return fmt.Errorf("node %s runs already", n.Name)
	}
	p, _, err := n.start(command{
		name: "proxyd on " + n.Name,
		argv: []string{n.binary, "run", "-c", n.Config},
		log:  n.Log,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	return nil
}

// last returns the process of the node's present or last life, nil before the first.
func (n *Node) last() *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Alive reports whether proxyd runs. A frozen one does.
func (n *Node) Alive() bool {
	p := n.last()
	return p != nil && p.Alive()
}

// PID returns proxyd's process number, 0 if it never ran.
func (n *Node) PID() int {
	if p := n.last(); p != nil {
		return p.PID()
	}
	return 0
}

// Kill ends proxyd as a crash would; nobody cleans up behind it.
func (n *Node) Kill() error {
	if p := n.last(); p != nil {
		return p.Kill()
	}
	return nil
}

// Freeze stops proxyd's threads without ending it.
func (n *Node) Freeze() error { return n.signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (n *Node) Thaw() error { return n.signal(syscall.SIGCONT) }

// Reload tells proxyd to read its file again, as `systemctl reload` does.
func (n *Node) Reload() error { return n.signal(syscall.SIGHUP) }

func (n *Node) signal(sig syscall.Signal) error {
	if p := n.last(); p != nil {
		return p.Signal(sig)
	}
	return fmt.Errorf("node %s was never started", n.Name)
}

// Stop ends proxyd as systemd does, with SIGTERM and patience.
func (n *Node) Stop(patience time.Duration) error {
	if p := n.last(); p != nil {
		return p.Terminate(patience)
	}
	return nil
}

// release kills proxyd and takes away what it left in the kernel that outlives its network
// namespace: the pins of its fence.
func (n *Node) release() {
	if n.last() == nil {
		return
	}
	_ = n.Kill()
	p, _, err := n.start(command{name: "proxyd release on " + n.Name, argv: []string{n.binary, "release", "-c", n.Config}, log: n.Log})
	if err != nil {
		return // the next proxyd on this machine removes them
	}
	select {
	case <-p.done:
	case <-time.After(2 * time.Second):
	}
}

// Status asks the node how it sees the cluster.
func (n *Node) Status(ctx context.Context) (*control.Status, error) {
	if !n.Alive() {
		return nil, n.gone()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return n.client.Status(ctx)
}

// Client returns the operator's side of the node's admin socket.
func (n *Node) Client() *control.Client { return n.client }

// gone says how proxyd ended, with the last words of its log.
func (n *Node) gone() error {
	p := n.last()
	if p == nil {
		return fmt.Errorf("node %s was never started", n.Name)
	}
	how := "exit code 0"
	if err := p.Err(); err != nil {
		how = err.Error()
	}
	return errors.New("proxyd on " + n.Name + " ended (" + how + "); " + tail(n.Log, 8))
}
