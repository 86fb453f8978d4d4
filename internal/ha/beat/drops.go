package beat

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"time"
)

// drops counts what was received and not believed.
type drops struct {
	junk, version, stranger, others, replay, early, full, lifeline, recorded, busy atomic.Uint64
}

func (d *drops) count(err error) {
	switch {
	case errors.Is(err, errVersion):
		d.version.Add(1)
	case errors.Is(err, errStranger):
		d.stranger.Add(1)
	case errors.Is(err, errOthers):
		d.others.Add(1)
	case errors.Is(err, errReplay):
		d.replay.Add(1)
	case errors.Is(err, errFull): // counted where it happened
	case errors.Is(err, errEarly):
		d.early.Add(1)
	default:
		d.junk.Add(1)
	}
}

// Dropped returns how many datagrams were dropped, by reason. "copy" are those that came
// on a second path or carrier too, or were recorded and played again; "others" were for
// another node; "lifeline" are calls that were not a node's, "recorded" those that were played
// again, "busy" those for which there was no room.
func (m *Mesh) Dropped() map[string]uint64 {
	d := &m.dropped
	return map[string]uint64{
		"junk": d.junk.Load(), "version": d.version.Load(), "stranger": d.stranger.Load(),
		"copy": d.replay.Load(), "early": d.early.Load(), "full": d.full.Load(),
		"others": d.others.Load(), "lifeline": d.lifeline.Load(), "recorded": d.recorded.Load(), "busy": d.busy.Load(),
	}
}

// report logs, once a minute, that something was dropped which no peer of ours sends.
func (d *drops) report(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	var last uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n := d.junk.Load() + d.version.Load() + d.stranger.Load() + d.lifeline.Load() + d.recorded.Load(); n > last {
			log.Warn("datagrams dropped on the heartbeat port: another key, version or program", "count", n-last)
			last = n
		}
	}
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
