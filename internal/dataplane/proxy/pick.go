package proxy

import (
	"strconv"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/upstream"
)

var nameSetCookie = []byte("Set-Cookie")

// pick finds the server for the first attempt, once the request's body is at hand if the
// route wants that. While all are full the exchange waits in
// the pool's queue, and x.Mark.Pick is its place there.
func (p *Plane) pick(x *dataplane.Exchange, r *compiledRoute) dataplane.Verdict {
	if place, waits := x.Mark.Pick.(*upstream.Waiter); waits {
		server, err := place.Result()
		switch err {
		case nil:
			return p.first(x, r, server)
		case upstream.ErrWaiting: // Resume was another's, or came late
			return dataplane.Wait
		}
		x.Mark.Pick = nil
		return p.refuseFull(x, r, "queue_wait")
	}
	if x.Request.Length != 0 && !x.Gathered && r.wantsBody(x) {
		return dataplane.Gather // a slow client occupies no server, and no place in a queue
	}
	now := p.headTime(x)
	x.Mark.Hash = r.pool.Hash(&x.Request, x.Mark.ClientIP)
	kept, fresh := r.pool.Kept(&x.Request, now)
	if fresh {
		x.Mark.Kept = &kept.Server
	}
	ask := upstream.Ask{Now: now, Hash: x.Mark.Hash, Keep: kept}
	server, err := r.pool.Pick(ask)
	if err == upstream.ErrFull {
		var place *upstream.Waiter
		if server, place, err = r.pool.Wait(ask, x.Resume); place != nil {
			x.Mark.Pick = place
			return dataplane.Wait
		}
	}
	switch err {
	case nil:
		return p.first(x, r, server)
	case upstream.ErrFull:
		return p.refuseFull(x, r, "queue_full")
	}
	return p.refuse(x, "no_server")
}

// wantsBody reports whether the body of x is read to hand before a server is asked.
func (r *compiledRoute) wantsBody(x *dataplane.Exchange) bool {
	return r.buffers || r.Sized && x.Request.Chunked || x.Mark.Copied && r.mirrorable(&x.Request)
}

// first sends x to its first server, and a copy of it where that is due.
func (p *Plane) first(x *dataplane.Exchange, r *compiledRoute, server *upstream.Server) dataplane.Verdict {
	x.Attempt = 1
	r.send(x, server)
	if x.Mark.Copied {
		p.mirror(x, r)
	}
	return dataplane.Next
}

// refuseFull answers that the pool has no room, and when to come again.
func (p *Plane) refuseFull(x *dataplane.Exchange, r *compiledRoute, word string) dataplane.Verdict {
	v := p.refuse(x, word)
	wait := time.Second
	if q := r.pool.Config.Queue; q != nil {
		wait = max(q.Wait.Round(time.Second), wait)
	}
	from := len(x.Text)
	x.Text = strconv.AppendInt(x.Text, int64(wait/time.Second), 10)
	x.Response.Header.Add(dataplane.Other, nameRetryAfter, x.Text[from:len(x.Text):len(x.Text)])
	return v
}

// leaveQueue gives up the place of an exchange that ends while it waits.
func leaveQueue(x *dataplane.Exchange) {
	if place, waits := x.Mark.Pick.(*upstream.Waiter); waits {
		place.Leave()
		x.Mark.Pick = nil
	}
}

// stick has the client come back to x.Server by a cookie, if it does not already.
func (p *Plane) stick(x *dataplane.Exchange, r *compiledRoute) {
	server, held := x.Mark.Pick.(*upstream.Server)
	if !held || x.Mark.Kept == x.Server {
		return
	}
	from := len(x.Text)
	x.Text = r.pool.Cookie(x.Text, server, p.headTime(x), string(x.Mark.Scheme) == "https")
	if value := x.Text[from:len(x.Text):len(x.Text)]; len(value) > 0 {
		x.Response.Header.Add(dataplane.SetCookie, nameSetCookie, value)
	}
}
