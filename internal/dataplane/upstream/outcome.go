package upstream

import (
	"errors"
	"log/slog"
	"strconv"
	"time"

	"proxyd/internal/dataplane"
)

// lessons are what attempts may come to that matters: passive.on is what counts as a
// server's failure, retry.on what is tried once more.
type lessons struct {
	connect bool // it could not be reached, broke off or sent what is no HTTP
	timeout bool // it could not be reached or did not answer in time
	status  map[int]bool
}

func newLessons(on []string) lessons {
	l := lessons{status: map[int]bool{}}
	for _, word := range on {
		switch word {
		case "connect":
			l.connect = true
		case "timeout":
			l.timeout = true
		default:
			if n, err := strconv.Atoi(word); err == nil {
				l.status[n] = true
			}
		}
	}
	return l
}

// after reports whether an attempt that ended with err is meant.
func (l *lessons) after(err error) bool {
	switch {
	case isAny(err, dataplane.ErrConnectTime, dataplane.ErrSendTime, dataplane.ErrReadTime):
		return l.timeout
	case isAny(err, dataplane.ErrConnect, dataplane.ErrSend, dataplane.ErrRead, dataplane.ErrResponse):
		return l.connect
	}
	return false
}

// AgainOn reports whether an answer with that status has another server asked.
func (p *Pool) AgainOn(status int) bool { return status >= 400 && p.again.status[status] }

// AgainAfter reports whether an attempt that ended with err is made once more. A server
// that was given up while it was waited for needs no word for it.
func (p *Pool) AgainAfter(err error) bool {
	return p.again.after(err) || errors.Is(err, dataplane.ErrServerDown)
}

// Answered notes that an attempt brought an answer: its status, how long it took, and
// whether the connection was new. It changes the server's health if the status counts.
func (p *Pool) Answered(s *Server, now time.Time, status int, took time.Duration, fresh bool, log *slog.Logger) {
	if fresh {
		p.Connects[ConnectOK].Add(1)
	} else {
		p.Reused.Add(1)
	}
	s.Response.Observe(took)
	if p.ewma {
		s.latency.learn(now, took)
	}
	if class := status / 100; class >= 1 && class <= 5 {
		s.Requests[class].Add(1)
	} else {
		s.Requests[0].Add(1)
	}
	if status >= 400 && p.learn.status[status] {
		p.fail(s, now, "status "+strconv.Itoa(status), 1, log)
		return
	}
	if s.unfit.Load() || p.counts {
		back := false
		s.change(func(h *Health) { back = h.Succeed(now, now.Add(-took), p.Config) })
		if back {
			log.Info("server is back", "pool", p.Name, "server", s.Name)
		}
	}
}

// Failed notes that an attempt brought no answer. Only what is the server's doing
// counts against it; what the client did, or this process, does not.
func (p *Pool) Failed(s *Server, now time.Time, err error, fresh bool, log *slog.Logger) {
	s.Requests[0].Add(1)
	switch {
	case errors.Is(err, dataplane.ErrConnect):
		p.Connects[ConnectFailed].Add(1)
		s.rotate()
	case errors.Is(err, dataplane.ErrConnectTime):
		p.Connects[ConnectTimedOut].Add(1)
		s.rotate()
	case fresh:
		p.Connects[ConnectOK].Add(1)
	default:
		p.Reused.Add(1)
	}
	p.blame(s, now, err, 1, log)
}

// Broke notes that an answer broke off after its head, which Answered was told of.
func (p *Pool) Broke(s *Server, now time.Time, err error, log *slog.Logger) {
	p.blame(s, now, err, 0, log)
}

func (p *Pool) blame(s *Server, now time.Time, err error, attempts int32, log *slog.Logger) {
	if !p.learn.after(err) {
		return
	}
	cause := "connect"
	if isAny(err, dataplane.ErrConnectTime, dataplane.ErrSendTime, dataplane.ErrReadTime) {
		cause = "timeout"
	}
	p.fail(s, now, cause, attempts, log)
}

// Panicking reports that no server of the pool is up, so that any is tried.
func (p *Pool) Panicking(now time.Time) bool {
	for _, s := range p.servers {
		if s.fit(now) {
			return false
		}
	}
	return len(p.servers) > 0
}

// fail counts a failure and sees to what it leads to.
func (p *Pool) fail(s *Server, now time.Time, cause string, attempts int32, log *slog.Logger) {
	s.Failures.Add(1)
	if p.ewma {
		s.latency.learn(now, p.Config.Timeout.Connect) // one that fails at once is not quick
	}
	var f Failure
	s.change(func(h *Health) { f = h.Fail(now, p.Config, cause, attempts) })
	if f == Excess || f == InARow || f == Frequent {
		f = p.eject(s, now, f)
	}
	var span time.Duration
	reason := ""
	switch f {
	case LeftOut, Ejected:
		s.Ejections[f].Add(1)
		s.change(func(h *Health) { span = h.out.span })
		reason = cause
	case Opened:
		s.Ejections[f].Add(1)
		span = p.Config.Breaker.Open
	default:
		return
	}
	log.Warn("server is left out", "pool", p.Name, "server", s.Name, "for", span, "reason", reason)
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
