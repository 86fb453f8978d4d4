package dataplane

import "errors"

// Closing is why a client's connection ended.
type Closing uint8

const (
	ClosedDone   Closing = iota // after its last answer, as one side had said it would
	ClosedClient                // the client ended it
	ClosedIdle                  // no request came in time
	ClosedTime                  // a head, body, answer or exchange took too long
	ClosedDrain                 // this node is ending
	ClosedFlood                 // it made too much work for nothing: resets, pings, empty frames
	ClosedError                 // what came was no HTTP, or something failed
	Closings                    // how many there are
)

// String returns the word for logs and metrics.
func (c Closing) String() string {
	return [...]string{"done", "client", "idle", "timeout", "drain", "flood", "error"}[c]
}

// ClosingOf returns what the end of an exchange with err means for its connection.
func ClosingOf(err error) Closing {
	var m *Malformed
	switch {
	case err == nil:
		return ClosedDone
	case errors.Is(err, ErrDrained):
		return ClosedDrain
	case errors.Is(err, ErrClientGone):
		return ClosedClient
	case errors.Is(err, ErrClientSlow), errors.Is(err, ErrTotalTime), errors.Is(err, ErrReadTime), errors.Is(err, ErrSendTime), errors.Is(err, ErrConnectTime):
		return ClosedTime
	case errors.As(err, &m) && m.Status == 408:
		return ClosedTime
	}
	return ClosedError
}
