package proxy

import (
	"errors"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

// Retry decides what follows an attempt that failed before the client got a byte: one
// more on another server, or an answer made here.
func (p *Plane) Retry(x *dataplane.Exchange, err error) dataplane.Verdict {
	s, r := of(x)
	word, server := blame(err)
	if word == "client_body" {
		p.countMalformed(x.Listener, err)
	}
	if server && p.failed(x, r, err) {
		return dataplane.Again
	}
	p.release(x, r) // where the server is not to blame
	if word == "" {
		return dataplane.Close
	}
	if x.Listener.ProxyStatus && server {
		x.Mark.Fault = faultOf(x, err)
	}
	p.refuse(x, word)
	p.finish(x, s, r)
	return dataplane.Answer
}

// blame returns the word for what went wrong ("" if there is nobody left to tell) and
// whether the server is at fault, or the way to it.
func blame(err error) (word string, server bool) {
	switch {
	case errors.Is(err, dataplane.ErrClientGone):
		return "", false
	case errors.Is(err, dataplane.ErrClientSlow):
		return "client_slow", false
	case errors.Is(err, dataplane.ErrClientBody):
		return "client_body", false
	case errors.Is(err, dataplane.ErrTooLarge):
		return "too_large", false
	case errors.Is(err, dataplane.ErrHeldFull):
		return "held_full", false
	case errors.Is(err, dataplane.ErrDrained):
		return "drain", false
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE): // it is we who have no descriptor left
		return "shed", false
	case errors.Is(err, dataplane.ErrTotalTime), errors.Is(err, dataplane.ErrConnectTime), errors.Is(err, dataplane.ErrSendTime), errors.Is(err, dataplane.ErrReadTime):
		return "timeout", true
	case errors.Is(err, dataplane.ErrConnect):
		return "connect", true
	case errors.Is(err, dataplane.ErrResponse):
		return "bad_response", true
	case errors.Is(err, dataplane.ErrSend), errors.Is(err, dataplane.ErrRead), errors.Is(err, dataplane.ErrServerDown):
		return "broken", true
	}
	return "internal", false
}

// failed notes the failure of x.Server and reports whether another one is asked.
func (p *Plane) failed(x *dataplane.Exchange, r *compiledRoute, err error) (again bool) {
	failed, held := x.Mark.Pick.(*upstream.Server)
	if !held {
		return false
	}
	now := p.opt.Now()
	if x.Mark.Answered {
		r.pool.Broke(failed, now, err, p.opt.Logger)
	} else {
		r.pool.Failed(failed, now, err, x.Times.Dial != 0, p.opt.Logger)
	}
	if x.Attempt > 1 {
		r.pool.Retries[upstream.RetryFailed].Add(1)
	}
	return r.pool.AgainAfter(err) && p.elsewhere(x, r, now)
}

// elsewhere has x go to a server that was not tried yet, if that may be and there is one.
//
// The client must not have got a byte, interim responses included, and the whole request
// must be at hand. One that may have reached a server goes to another only if it can be
// sent twice without harm (RFC 9110, 9.2.2).
func (p *Plane) elsewhere(x *dataplane.Exchange, r *compiledRoute, now time.Time) bool {
	if x.Attempt >= r.attempts || x.Bytes.Out > 0 || !x.Replayable || x.Sent && !x.Request.Method.Idempotent() {
		return false
	}
	x.Mark.Tried[x.Attempt-1] = x.Server // compile bounds attempts by its length
	other, err := r.pool.PickOther(upstream.Ask{Now: now, Hash: x.Mark.Hash, Tried: x.Mark.Tried[:x.Attempt]})
	if err != nil {
		return false
	}
	p.release(x, r)
	x.Attempt++
	x.Response.Reset()
	r.send(x, other)
	return true
}

// release gives x.Server back to its pool, once an attempt.
func (p *Plane) release(x *dataplane.Exchange, r *compiledRoute) {
	if server, held := x.Mark.Pick.(*upstream.Server); held {
		r.pool.Release(server)
		x.Mark.Pick = nil
	}
}
