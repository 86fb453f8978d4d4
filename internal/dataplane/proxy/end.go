package proxy

import (
	"errors"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/accesslog"
	"proxyd/internal/dataplane/upstream"
)

// statusClientGone is what is logged and counted for a client that left before it got
// an answer. It never goes over a wire.
const statusClientGone = 499

// statusNoAnswer is what is logged and counted for a client whose connection was closed
// instead of an answer, as nginx does. It never goes over a wire.
const statusNoAnswer = 444

// End counts x and writes its log line. It is the only place that does either.
func (p *Plane) End(x *dataplane.Exchange, err error) {
	_, r := of(x)
	now := p.opt.Now()
	leaveQueue(x)
	if server, held := x.Mark.Pick.(*upstream.Server); held {
		switch _, failed := blame(err); {
		case err == nil || !failed:
		case x.Mark.Answered:
			r.pool.Broke(server, now, err, p.opt.Logger)
		default: // too late to ask Retry: the client had an interim response
			r.pool.Failed(server, now, err, x.Times.Dial != 0, p.opt.Logger)
		}
		p.release(x, r)
	}
	p.leave(x)
	p.unhold(x)
	status := x.Response.Status
	if x.Mark.Meant != 0 {
		status = x.Mark.Meant
	}
	if !x.Mark.Answered && !x.Mark.Local {
		status = unanswered(err)
	}
	// That a file, say, was meant to be the answer is no reason for its having been broken off.
	if err != nil && (x.Mark.Reason == "" || x.Mark.Local && status < 400) {
		x.Mark.Reason = ending(err)
	}
	r.counters.count(x, status, now.Sub(x.Times.Start))
	l := p.listeners.at(x.Listener.Index)
	l.in.Add(uint64(x.Bytes.In))
	l.out.Add(uint64(x.Bytes.Out))
	if x.Mark.Trace.Sampled && p.spans.On() {
		p.exportSpans(x, status, err, now)
	}
	if r.Log && p.access.On() {
		p.access.Exchange(x, &accesslog.Entry{Now: now, Status: status, Failed: err != nil, Policies: r.policies})
	}
}

// unanswered is the status for the log and the counters of an exchange that got no
// final answer.
func unanswered(err error) int {
	if errors.Is(err, dataplane.ErrClientGone) || errors.Is(err, dataplane.ErrClientSlow) {
		return statusClientGone
	}
	word, _ := blame(err)
	return causes[causeIndex(word)].status
}

// ending is the reason in the log line of an exchange whose answer did not reach the
// client whole.
func ending(err error) string {
	if word, _ := blame(err); word != "" {
		return word
	}
	return "client_gone"
}
