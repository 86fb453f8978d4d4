package proxy

import (
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/upstream"
)

// Respond learns from the head of x.Server's answer and makes it fit for the client, or
// has another server asked.
func (p *Plane) Respond(x *dataplane.Exchange) dataplane.Verdict {
	s, r := of(x)
	if server, held := x.Mark.Pick.(*upstream.Server); held && !x.Mark.Answered {
		x.Mark.Answered = true
		p.leave(x)
		when := x.Times.FirstByte
		if when.IsZero() {
			when = p.opt.Now()
		}
		took := when.Sub(x.Times.Sent)
		if x.Times.Sent.IsZero() {
			took = 0
		}
		if x.Times.Dial != 0 {
			server.Connect.Observe(x.Times.Dial)
		}
		r.pool.Answered(server, when, x.Response.Status, took, x.Times.Dial != 0, p.opt.Logger)
		again := r.pool.AgainOn(x.Response.Status)
		if x.Attempt > 1 {
			result := upstream.RetryOK
			if again {
				result = upstream.RetryFailed
			}
			r.pool.Retries[result].Add(1)
		}
		if again && p.elsewhere(x, r, when) {
			return dataplane.Again
		}
	}
	h := &x.Response.Header
	http1.StripHop(h, x.Response.Nominated, x.Response.Status == 101 && x.Request.WebSocket && r.WebSocket)
	r.locator.rewrite(x)
	s.trace.tell(x)
	s.pledge(x)
	offer(x)
	p.stick(x, r)
	v := p.filter(x, s, r)
	if v == dataplane.Next {
		h.Add(dataplane.Via, nameVia, via11)
	}
	if l := x.Listener; l.ProxyStatus || l.ServerTiming {
		p.tell(x)
	}
	return v
}
