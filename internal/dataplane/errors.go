package dataplane

import "errors"

// A Malformed is bytes of a client or a server that are no acceptable HTTP message.
type Malformed struct {
	Status int    // what a client gets for it: 400, 414, 417, 431, 501, 505
	Reason string // a word for the metric: cl_te, obs_fold, bare_lf, bad_chunk, path, host ...
	Detail string // for the log
}

func (m *Malformed) Error() string {
	if m.Detail == "" {
		return "malformed: " + m.Reason
	}
	return "malformed: " + m.Reason + ": " + m.Detail
}

// What an engine gives to Retry and End, wrapped with what the socket said.
var (
	ErrConnect       = errors.New("connect to server")            // nothing was sent
	ErrConnectTime   = errors.New("connect to server: timed out") // nothing was sent
	ErrSend          = errors.New("send to server")
	ErrSendTime      = errors.New("send to server: timed out")
	ErrRead          = errors.New("read from server")            // before the head was complete, or in the body
	ErrReadTime      = errors.New("read from server: timed out") // likewise
	ErrServerDown    = errors.New("server is down")              // it was Lost while its answer was awaited
	ErrTotalTime     = errors.New("exchange: timed out")
	ErrResponse      = errors.New("malformed response") // wraps a *Malformed
	ErrClientGone    = errors.New("client closed its connection")
	ErrClientSlow    = errors.New("client too slow")
	ErrClientBody    = errors.New("malformed request body")         // wraps a *Malformed; answered 400
	ErrTooLarge      = errors.New("request body too large")         // answered 413
	ErrHeldFull      = errors.New("no room to hold a request body") // answered 503
	ErrHandshakeTime = errors.New("TLS handshake: timed out")
	ErrDrained       = errors.New("closed by drain")
)
