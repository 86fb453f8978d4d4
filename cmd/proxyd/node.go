package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/engine"
	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/history"
	"proxyd/internal/notify"
	"proxyd/internal/track"
)

// A node is this process: the one place where data plane, cluster and control meet.
type node struct {
	file      string
	log       *slog.Logger
	level     *slog.LevelVar
	started   time.Time
	plane     *proxy.Plane
	engine    *engine.Loop
	metrics   *prometheus.Registry
	applies   *prometheus.CounterVec   // configurations applied to the cluster from here, by result
	rotations *prometheus.CounterVec   // of its keys, likewise
	taken     *prometheus.HistogramVec // how long takeovers took
	succession

	shared  *shared                // what the nodes know together
	record  *recorder              // what happened
	tracks  *track.Set             // what else its fitness depends on
	notify  *notify.Notifier       // who is told of it
	acme    *certifier             // who orders certificates
	drained atomic.Pointer[string] // why an operator wants no clients here; nil: they may come

	mu        sync.Mutex     // one change at a time; guards what follows
	config    *config.Config // in force
	cluster   *cluster       // nil while there is neither [cluster] nor a VIP
	overrides *overrides
	tried     [32]byte // digest of the texts that were last read
	watching  *watch   // nil unless node.watch
	admin     *admin
	stood     stand
	apply     applying

	firstMu    sync.Mutex // guards what follows
	first      string     // of a cluster without VIPs: the node that comes first, and since when
	firstSince time.Time
}

// maxScrapes is how many pages of metrics are made at once; one more is told to come
// again.
const maxScrapes = 4

// drainTime is how long exchanges may take to end after SIGTERM; cluster.drain if that is
// less. systemd kills ten seconds later (TimeoutStopSec).
const drainTime = 50 * time.Second

// lastHandshakes is how long listeners stay open after a hand-over: who was told the old
// place a moment ago ends the handshake here.
const lastHandshakes = time.Second

// leaveTime is how long the hand-over of all VIPs may take when the cluster part changes.
const leaveTime = 5 * time.Second

// run is the life of a node: everything is open before it says that it is ready, and
// SIGTERM gives the addresses away before anything closes.
func run(ctx context.Context, file string) (err error) {
	from, err := findPredecessor()
	defer func() {
		if err != nil {
			from.failed(err)
		}
	}()
	if err != nil {
		return err
	}
	if err := putBack(file); err != nil {
		return err
	}
	tried := digest(config.Texts{Main: file})
	c, err := load(config.Texts{Main: file})
	if err != nil {
		return err
	}
	n := &node{file: file, level: new(slog.LevelVar), started: time.Now(), config: c, tried: tried, taken: newTakeovers(), applies: newApplies(), rotations: newRotations(), succession: newSuccession(from)}
	n.level.Set(level(c.Log.Level))
	if n.binary, err = os.Executable(); err != nil {
		return err
	}
	n.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: n.level}))

	// An event loop keeps one to itself while it is busy. As many are for what else there
	// is to do, and the heartbeat must find one while all of those are busy.
	runtime.GOMAXPROCS(2*runtime.NumCPU() + 1)
	raiseFileLimit(n.log)
	limitMemory(n.log)

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	signal.Ignore(syscall.SIGPIPE) // of whoever read the access log from standard output

	n.engine = engine.NewLoop(engine.Config{Logger: n.log, Panic: func(what any) { n.plane.NotePanic(what) }})
	quota := newQuota(func() uint64 { return n.engine.Counts().Rests })
	n.plane = proxy.New(proxy.Options{Engine: n.engine, Logger: n.log, Curbed: quota.Curbed, Idle: n.engine.Spare,
		Listen: from.listen, Shut: from != nil, Berths: from.berths, Gone: from.gone})
	n.shared = newShared(c.Node.Name)
	n.record = newRecorder(c.Node.State, c.Node.Name, n.started, n.log)
	n.shared.record = n.record
	n.tracks = n.newTracks()
	defer n.tracks.Close()
	n.acme = n.newCertifier()
	n.notify = notify.New(n.log)
	n.notify.Set(receivers(c))
	if n.overrides, err = openOverrides(c.Node.State, n.shared); err != nil {
		n.log.Error("state directory", "error", err)
	}
	if n.lives, err = openLives(c.Node.State, time.Now(), from != nil); err != nil {
		n.log.Warn("state directory: crashes are not counted", "error", err)
	} else if why := n.lives.rests(time.Now()); why != "" {
		n.log.Error("this node is in a crash loop", "why", why)
	}
	n.restrain()
	if err := n.plane.Apply(c); errors.Is(err, proxy.ErrLowPort) {
		return fault{exitPermission, err}
	} else if err != nil {
		return err
	}
	if err := n.shared.restore(filepath.Join(c.Node.State, standingsFile)); err != nil {
		n.log.Error("state directory", "error", err)
	}
	if err := n.acme.shelf.restore(); err != nil {
		n.log.Error("state directory", "error", err)
	}
	n.metrics = n.registry()
	life, end := context.WithCancel(ctx)
	go quota.watch(life, n.log, n.engine.Pace)
	defer end()
	n.life, n.end = life, end
	var parts sync.WaitGroup
	defer parts.Wait()
	defer end()
	following, unfollow := context.WithCancel(ctx) // the process before this one, until that ends or this one
	defer unfollow()
	if err := n.openAdmin(life, &parts, c.Admin); err != nil {
		return err
	}
	n.tracks.Use(c.Track)
	part, err := startCluster(life, n, c, from)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.cluster = part // operators ask already
	n.useACME(c)
	n.mu.Unlock()
	n.acme.Refresh() // the first client is served by what is there
	n.plane.Open()
	from.serve(following, n, &parts)
	n.stand(false)
	parts.Go(func() { n.record.run(life, n) })
	parts.Go(func() { n.notify.Run(life) })
	n.record.note(n.begun(c))
	n.log.Info("proxyd is up", "version", version, "node", c.Node.Name, "config", c.Hash)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	parts.Go(func() { n.acme.Run(life) })
	parts.Go(func() { n.followACME(life) })
	parts.Go(func() { n.watchdog(life) })
	parts.Go(func() { n.followOverrides(life) })
	parts.Go(func() { n.followStandings(life) })
	parts.Go(func() { n.followApply(life) })
	parts.Go(func() { n.followSocket(life) })
	parts.Go(func() { n.shared.expire(life) })
	n.mu.Lock()
	n.watch()
	n.mu.Unlock()

	for ending := false; !ending; {
		select {
		case to := <-n.handed:
			return n.retire(to, signals)
		case s := <-signals:
			if ending = n.signalled(life, s); ending {
				n.record.note(history.Entry{Kind: history.Stopped, Text: s.String()})
			}
		}
	}
	n.log.Info("ending: handing addresses over, then letting exchanges end")
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	return n.finish(signals)
}

// signalled does what a signal asks for, and reports whether that is the end.
func (n *node) signalled(ctx context.Context, s os.Signal) (end bool) {
	switch s {
	case syscall.SIGHUP:
		r, err := n.reload()
		n.tell("SIGHUP", r, err)
	case syscall.SIGUSR1:
		n.plane.ReopenLogs()
	case syscall.SIGUSR2:
		go func() { // ends with the conversation, which has its time-outs
			// The log says how it went.
			_, _ = n.Upgrade(ctx, control.Upgrade{})
		}()
	default:
		return true
	}
	return false
}

// finish gives the addresses away, lets exchanges end, and closes everything. A further
// SIGTERM cuts it short.
func (n *node) finish(signals <-chan os.Signal) error {
	n.mu.Lock()
	held, patience := n.cluster, min(drainTime, n.config.Cluster.Drain)
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() { // ends with the process
		for s := range signals {
			switch s {
			case syscall.SIGHUP, syscall.SIGUSR2:
			case syscall.SIGUSR1:
				n.plane.ReopenLogs()
			default:
				cancel()
			}
		}
	}()
	if held != nil {
		held.leave(ctx)
		n.record.publish(n.shared) // the others learn how this node left
		if held.draining() {
			select {
			case <-time.After(lastHandshakes):
			case <-ctx.Done():
			}
		}
	}
	err := n.plane.Shutdown(ctx)
	n.from.wait(ctx) // what it still serves is at the same addresses
	if held != nil {
		held.stop()
	}
	if bad := n.lives.farewell(); bad != nil {
		n.log.Debug("state directory", "error", bad)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		n.log.Warn("exchanges were cut off", "error", err)
		return nil
	}
	return err
}

func (n *node) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		goCollector(),
		n.plane,
		newSlowBatches(n.engine),
		newRests(n.engine),
		checksOfQUIC{n.engine},
		newRefused(n.engine),
		clusterMetrics{n},
		n.taken,
		&n.upgrades,
		n.applies,
		n.rotations,
		n.acme.orders,
	)
	return r
}

// watchdog tells systemd that the node lives, as long as it does: its data plane and
// its cluster loop answer.
func (n *node) watchdog(ctx context.Context) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, every/3)
		if _, err := n.Status(ask); err == nil {
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
		cancel()
	}
}

// raiseFileLimit takes as many file descriptors as this process may have.
func raiseFileLimit(log *slog.Logger) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur == l.Max {
		return
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		log.Warn("file descriptor limit", "error", err)
	}
}

// limitMemory lets the runtime collect more often rather than grow beyond what this process
// may have. GOMEMLIMIT, which the runtime reads itself, goes before.
func limitMemory(log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if n := memoryLimit(os.DirFS("/")); n > 0 {
		debug.SetMemoryLimit(n)
		log.Info("memory is limited by a control group", "limit_bytes", n)
	}
}

// level turns log.level, which config has checked, into slog's.
func level(name string) slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(name))
	return l
}
