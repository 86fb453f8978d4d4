package http2

import (
	"time"

	"golang.org/x/net/http2"

	"proxyd/internal/dataplane"
)

// A budget is how often something may happen: so many at once, and so many a second.
type budget struct {
	left, most int64 // in thousandths
	rate       int64 // thousandths a millisecond: times a second
}

func budgetOf(most, rate int64) budget {
	return budget{left: most * 1000, most: most * 1000, rate: rate}
}

// refill adds what has become free.
func (b *budget) refill(passed time.Duration) {
	b.left = min(b.most, b.left+passed.Milliseconds()*b.rate)
}

// earn adds n.
func (b *budget) earn(n int64) { b.left = min(b.most, b.left+n*1000) }

// spend takes n and reports whether they were there.
func (b *budget) spend(n int64) bool {
	b.left -= n * 1000
	return b.left >= 0
}

// budgets are what one connection may do that is legal and makes us work for nothing.
//
// Resets (D1, D2) count whoever resets: a client that makes us reset a stream gets no more
// work for it than one that does so itself. Frames that carry nothing (D4) are earned by
// requests, and by what we send: a reader of large answers updates windows all the time.
type budgets struct {
	resets  budget
	control budget
	seen    time.Duration
}

const (
	resetsAtOnce, resetsASecond   = 200, 100
	controlAtOnce, controlASecond = 1000, 200
	controlForRequest             = 8       // a request earns as many frames around it
	settingsInFrame               = 8       // of one SETTINGS that costs as much as any other frame
	controlForFrame               = 3       // a frame of data that we send, or take, likewise
	smallData                     = 1 << 10 // of a frame whose work is more in the frame than in its bytes
)

func (b *budgets) begin(now time.Duration) {
	b.resets, b.control = budgetOf(resetsAtOnce, resetsASecond), budgetOf(controlAtOnce, controlASecond)
	b.seen = now
}

func (b *budgets) refill(now time.Duration) {
	if passed := now - b.seen; passed >= time.Millisecond {
		b.resets.refill(passed)
		b.control.refill(passed)
		b.seen = now
	}
}

// glitch pays for a frame that carries nothing.
func (c *Conn) glitch(kind dataplane.Glitch) *Fault {
	c.host.Glitch(kind)
	if !c.control.spend(1) {
		return c.fail(http2.ErrCodeEnhanceYourCalm, "too many frames: "+kind.String())
	}
	return nil
}

// reset pays for a stream that ends before its answer.
func (c *Conn) payReset(kind dataplane.Glitch) *Fault {
	c.host.Glitch(kind)
	if !c.resets.spend(1) {
		return c.fail(http2.ErrCodeEnhanceYourCalm, "too many resets")
	}
	return nil
}
