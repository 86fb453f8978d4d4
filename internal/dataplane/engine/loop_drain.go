package engine

import (
	"proxyd/internal/dataplane"
)

// dismiss lets idle clients go after the grace, and closes what is kept with servers.
func (l *loop) dismiss() {
	due := now() + moment(l.engine.side.conf.IdleGrace)
	for _, w := range l.table {
		if w == nil || w.client == nil {
			continue
		}
		if c := w.client; c.phase == phaseIdle && c.tray == nil || c.phase == phaseFront {
			l.wheel.set(w, due)
		}
	}
	l.emptyAll()
}

// cut ends all connections now.
func (l *loop) cut() {
	l.flush() // who has an answer gets it
	l.cutOff = true
	for _, w := range l.table {
		if w != nil && w.client != nil {
			l.cutClient(w.client)
		}
	}
}

// cutClient ends a connection by force, and a panic of the handler ends no more than that.
func (l *loop) cutClient(c *loopClient) {
	defer l.recovered()
	l.busy = c
	switch c.phase {
	case phaseIdle, phaseLinger, phaseRefuse, phaseFront:
		c.why = closing(dataplane.ErrDrained)
		l.closeClient(c)
	case phaseShake:
		l.shakeOver(c, dataplane.ErrDrained)
	case phaseAsk:
		l.forsake(c, dataplane.ErrDrained)
	case phaseAnswer, phaseDrain:
		c.keep = false
		l.finish(c, dataplane.ErrDrained)
	default:
		l.fail(c, dataplane.ErrDrained)
	}
	l.busy = nil
}
