package proxy

import (
	"errors"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

// statusClientGone is what is logged and counted for a client that left before it got
// an answer. It never goes over a wire.
const statusClientGone = 499

// End counts x and writes its log line. It is the only place that does either.
func (p *Plane) End(x *dataplane.Exchange, err error) {
	s, r := of(x)
	now := p.opt.Now()
	if server, held := x.Mark.Pick.(*upstream.Server); held {
		if err != nil && x.Mark.Answered {
			r.pool.Broke(server, now, err, p.opt.Logger)
		}
		p.release(x, r)
	}
	status := x.Response.Status
	if !x.Mark.Answered && !x.Mark.Local {
		status = unanswered(err)
	}
	if err != nil && x.Mark.Reason == "" {
		x.Mark.Reason = ending(err)
	}
	r.counters.count(x, status, now.Sub(x.Times.Start))
	if r.Log {
		p.access.exchange(x, s.conf.Node.Name, status, now)
	}
}

// unanswered is the status for the log and the counters of an exchange that got no
// answer at all.
func unanswered(err error) int {
	switch {
	case errors.Is(err, dataplane.ErrClientGone), errors.Is(err, dataplane.ErrClientSlow):
		return statusClientGone
	case errors.Is(err, dataplane.ErrDrained):
		return 503
	}
	return 500
}

// ending is the reason in the log line of an exchange whose answer did not reach the
// client whole.
func ending(err error) string {
	switch {
	case errors.Is(err, dataplane.ErrClientGone):
		return "client_gone"
	case errors.Is(err, dataplane.ErrDrained):
		return "drain"
	}
	word, _ := blame(err)
	return word
}
