package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/baton"
	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/history"
)

// upgrades is how those of this node went. The numbers go on from process to process.
type upgrades struct{ done, failed atomic.Uint64 }

// callTime is for how long the moment of change waits for calls that are in progress.
const callTime = time.Second

// vetTime is how long a binary may take to say who it is, and to check the file.
const vetTime = 10 * time.Second

// Upgrade implements control.Operator: another process of the binary takes this one's place.
// If it cannot, this one goes on as if nothing had happened.
func (n *node) Upgrade(ctx context.Context, u control.Upgrade) (*control.Upgraded, error) {
	if u.Binary == "" {
		u.Binary = n.binary
	}
	if err := n.claim(); err != nil {
		return nil, err
	}
	began := time.Now()
	to, err := n.succeed(ctx, u.Binary)
	if err != nil {
		n.upgrades.failed.Add(1)
		n.plane.Resume()
		n.log.Error("the upgrade failed, this process goes on", "binary", u.Binary, "error", err)
		n.record.note(history.Entry{Kind: history.Upgraded, Reason: "failed", Text: "the process before goes on: " + shortText(err.Error())})
		n.release()
		return nil, err
	}
	n.log.Info("another process serves now; this one lets its exchanges end", "pid", to.hello.PID,
		"version", to.hello.Version.Version, "took", time.Since(began).Round(time.Millisecond), "connections", n.plane.Connections())
	r := &control.Upgraded{From: build(), To: to.hello.Version, PID: to.hello.PID,
		MS: time.Since(began).Milliseconds(), PauseMS: float64(to.pause.Microseconds()) / 1000, Left: n.plane.Connections()}
	// Who asks next is answered by the other process.
	n.admin.keepSocket()
	n.end()
	n.admin.leave()
	n.handed <- to // there is room: one process can be left to one other
	return r, nil
}

// begun is what history has of the begin of this process.
func (n *node) begun(c *config.Config) history.Entry {
	if n.from != nil {
		return history.Entry{Kind: history.Upgraded, Text: fmt.Sprintf("from version %s to %s, process %d to %d", n.from.words.Version.Version, version, n.from.words.PID, os.Getpid())}
	}
	text := fmt.Sprintf("version %s, configuration %s", version, c.Hash)
	if n.lives != nil && n.lives.before != "" {
		text += ", " + n.lives.before
	}
	return history.Entry{Kind: history.Started, Text: text}
}

// claim keeps all other changes out until release.
func (n *node) claim() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.succeeding {
		return errSucceeding
	}
	n.succeeding = true
	return nil
}

func (n *node) release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.succeeding = false
}

// errSucceeding refuses what would change this process while another takes its place.
var errSucceeding = control.Refuse("an upgrade is under way: ask again when it is done")

// succeed starts a process of binary and gives it all that this one has. On error all is as
// before.
func (n *node) succeed(ctx context.Context, binary string) (*successor, error) {
	if err := n.vet(ctx, binary); err != nil {
		return nil, err
	}
	if err := n.sameCluster(); err != nil {
		return nil, err
	}
	to, err := n.spawn(binary)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	if err := n.pass(to); err != nil {
		return nil, to.abandon(err) // which it may be already
	}
	return to, nil
}

// vet asks a binary who it is, and what it thinks of the file.
func (n *node) vet(ctx context.Context, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, vetTime)
	defer cancel()
	text, err := bounded(ctx, binary, "version", "-o", "json").Output()
	var v control.Version
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if ctx.Err() != nil {
		return control.Invalid(fmt.Sprintf("%s is no proxyd that runs here: it does not say within %v which version it is", binary, vetTime))
	}
	if err != nil {
		return control.Invalid(fmt.Sprintf("%s is no proxyd that runs here: %v", binary, err))
	}
	check := bounded(ctx, binary, "check", "-c", n.file)
	if out, err := check.CombinedOutput(); err != nil {
		return control.Invalid(fmt.Sprintf("%s (%s) refuses %s: %v\n%s", binary, v.Version, n.file, err, strings.TrimSpace(string(out))))
	}
	n.log.Info("upgrade", "from", version, "to", v.Version, "binary", binary)
	return nil
}

// bounded is a command that is given up when ctx ends, with whatever it has started.
func bounded(ctx context.Context, binary string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, binary, args...)
	c.WaitDelay = time.Second // a child of it may keep its output open for ever
	return c
}

// spawn starts a process of binary with a line to this one.
func (n *node) spawn(binary string) (*successor, error) {
	line, far, err := baton.Pair()
	if err != nil {
		return nil, err
	}
	defer far.Close()
	to := &successor{line: line, ended: make(chan struct{}), said: &lastLines{to: os.Stderr}}
	cmd := exec.Command(binary, "run", "-c", n.file)
	cmd.Stdout, cmd.Stderr = os.Stdout, to.said
	cmd.ExtraFiles = []*os.File{far, os.Stderr}
	for _, e := range os.Environ() {
		// The watchdog of systemd is meant for one process, which is now another.
		if !strings.HasPrefix(e, "WATCHDOG_PID=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, lineEnv+"=3", logEnv+"=4")
	// A pipe that somebody else holds open must not keep us.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		line.Close()
		return nil, err
	}
	to.kill = cmd.Process.Kill
	go func() { // ends with the process
		to.err = cmd.Wait()
		close(to.ended)
	}()
	return to, nil
}

// pass has the conversation with the process that comes, up to where it serves.
func (n *node) pass(to *successor) error {
	if _, err := to.hear(sayHello, answerTime, &to.hello); err != nil {
		return err
	}
	spoken, err := agree(to.hello)
	if err != nil {
		return err
	}
	words := socketsWords{Succession: spoken, Version: build(), PID: os.Getpid()}
	files, err := n.sockets(&words)
	if err != nil {
		return err
	}
	err = to.line.Send(answerTime, saySockets, words, files...)
	baton.CloseFiles(files)
	if err != nil {
		return err
	}
	if _, err := to.hear(sayReady, readyTime, nil); err != nil {
		return err
	}

	return n.give(to)
}

// give is the moment of change, as this process sees it.
func (n *node) give(to *successor) (err error) {
	// Who asks in this moment waits, and is answered by whoever decides then.
	n.admin.gate.shut(callTime)
	defer func() {
		if err != nil {
			n.admin.gate.open()
		}
	}()
	k, _, _ := n.part()
	stopped := time.Now()
	words := stateWords{Shared: n.shared.Encode(speaks().Oldest), Done: n.upgrades.done.Load(), Failed: n.upgrades.failed.Load()}
	settle, patience := func(bool) {}, answerTime
	if k != nil {
		patience = k.patience()
		if words.Cluster, settle, err = k.halt(); err != nil {
			return err
		}
	}
	if err = to.line.Send(patience, sayState, words); err == nil {
		_, err = to.hear(saySet, patience-time.Since(stopped), nil)
	}
	if err == nil {
		// The last moment to turn back: from here on nobody but the other process decides.
		err = to.line.Send(patience, sayYours, nil)
	}
	if err != nil {
		err = to.abandon(err) // before this one decides again, the other must be gone
		settle(false)
		return err
	}
	settle(true)
	to.pause = time.Since(stopped)
	if _, err = to.hear(sayUp, answerTime, nil); err != nil {
		err = to.abandon(err)
		n.revive()
	}
	return err
}

// revive has the cluster part start anew, as after a restart: the process that was to go on
// with it ended when it had hardly begun.
func (n *node) revive() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cluster == nil {
		return
	}
	n.cluster.stop()
	k, err := startCluster(n.life, n, n.config, nil)
	if err != nil {
		n.log.Error("the cluster part could not be started again", "error", err)
	}
	n.cluster = k
	n.standNow()
}

// sockets returns copies of all sockets that the next process must have, and says of those of
// UDP whose they are.
func (n *node) sockets(words *socketsWords) ([]baton.File, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	files, err := n.admin.sockets()
	if err != nil {
		return nil, err
	}
	doors, err := n.plane.Sockets()
	if err != nil {
		baton.CloseFiles(files)
		return nil, err
	}
	for address, f := range doors {
		files = append(files, baton.File{Name: listenerPrefix + address, File: f})
	}
	packets, err := n.packets(words)
	if err != nil {
		baton.CloseFiles(files)
		return nil, err
	}
	files = append(files, packets...)
	if n.cluster == nil {
		return files, nil
	}
	members, err := n.cluster.sockets()
	if err != nil {
		baton.CloseFiles(files)
	}
	return append(files, members...), err
}

// packets returns the UDP sockets of the listeners, with those of processes before this one, and
// what tells of those whether they live.
func (n *node) packets(words *socketsWords) ([]baton.File, error) {
	berths, err := n.plane.Berths()
	if err != nil {
		return nil, err
	}
	var files []baton.File
	words.Packets = map[string][]packetWords{}
	for address, all := range berths {
		for i, b := range all {
			words.Packets[address] = append(words.Packets[address], packetWords{b.Tag, b.PID})
			files = append(files, baton.File{Name: packetName(i, address), File: b.Socket})
		}
	}
	before, err := n.from.processes()
	if err != nil {
		baton.CloseFiles(files)
	}
	return append(files, before...), err
}

// packetName is that of a UDP socket on its way.
func packetName(number int, address string) string {
	return packetPrefix + strconv.Itoa(number) + " " + address
}

// retire ends this process, whose place another has taken: nobody new is let in, and what
// is in progress may end. A second SIGTERM cuts that short; the first only says that the
// service ends, which this process does anyway.
func (n *node) retire(to *successor, signals <-chan os.Signal) error {
	defer to.line.Close()
	// Until now systemd believes this process alone.
	_, _ = daemon.SdNotify(false, fmt.Sprintf("MAINPID=%d", to.hello.PID))
	n.mu.Lock()
	if n.watching != nil {
		n.watching.events.Close()
	}
	k := n.cluster
	n.cluster = nil
	drain := n.config.Cluster.Drain // as after a hand-over to another node
	n.mu.Unlock()
	if k != nil {
		k.stop()
	}

	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	go func() { // ends with the process
		again := false
		for s := range signals {
			switch s {
			case syscall.SIGUSR1:
				n.plane.ReopenLogs()
			case syscall.SIGTERM, os.Interrupt:
				if again {
					cancel()
				}
				again = true
			}
		}
	}()
	go n.letGo(to)
	go n.sayWhatIsLeft(ctx, to)
	if err := n.plane.Shutdown(ctx); err != nil {
		n.log.Warn("exchanges were cut off", "error", err)
	}
	// The other process learns of those before this one through this one alone.
	n.from.wait(ctx)
	n.log.Info("the process before the upgrade ends", "pid", os.Getpid())
	return nil
}

// sayWhatIsLeft tells the process that took this one's place, every second, how many connections
// there still are here and in the processes before, until ctx or that process ends.
func (n *node) sayWhatIsLeft(ctx context.Context, to *successor) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if to.line.Send(time.Second, sayLeft, n.left()) != nil {
			return // nobody asks any more
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// left is how many connections there are here and in the processes before.
func (n *node) left() leftWords {
	w := leftWords{n.plane.Connections(), n.engine.CountAll()}
	before, _ := n.from.remains()
	w.Connections += before.Connections
	if before.At == nil {
		w.At = nil
	}
	for at, k := range before.At {
		w.At[at] += k
	}
	return w
}

// letGo ends connections at an address here and in the processes before, when the process that
// took this one's place says so, until that ends.
func (n *node) letGo(to *successor) {
	all := everyone{n.engine, n.from}
	for {
		m, err := to.line.Receive(10 * time.Second)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // there is nothing to be said
		}
		if err != nil {
			return
		}
		baton.CloseFiles(m.Files)
		var w partWords
		if m.Kind == sayPart && json.Unmarshal(m.Body, &w) == nil {
			all.Retire(w.Address, w.Force)
		}
	}
}

var upgradesTotal = desc("upgrades_total", "Upgrades of this node in place, by how they went.", "result")

// Describe and Collect implement prometheus.Collector.
func (u *upgrades) Describe(out chan<- *prometheus.Desc) { out <- upgradesTotal }

func (u *upgrades) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(upgradesTotal, prometheus.CounterValue, float64(u.done.Load()), "done")
	out <- prometheus.MustNewConstMetric(upgradesTotal, prometheus.CounterValue, float64(u.failed.Load()), "failed")
}

// upgradeStatus says how this process came to be, nil if it is the first.
func (n *node) upgradeStatus() *control.UpgradeStatus {
	if n.from == nil {
		return nil
	}
	s := &control.UpgradeStatus{From: n.from.words.Version.Version, To: version, Since: n.started}
	if left, lives := n.from.remains(); lives {
		s.Draining = &control.Draining{PID: n.from.words.PID, Connections: left.Connections}
	}
	return s
}

// errGone is why a successor says nothing more.
var errGone = errors.New("it ended")
