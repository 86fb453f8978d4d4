package control

import (
	"errors"
	"net/http"
)

// What an Operator may answer besides a plain error; the client gives back the same.
var (
	ErrRefused = errors.New("refused")   // it can be done but must not now; nothing was changed
	ErrInvalid = errors.New("invalid")   // the input is bad; nothing was changed
	ErrTimeout = errors.New("timed out") // it was begun and is not done
	ErrAbsent  = errors.New("not reachable")
)

// kinds pairs each sentinel with its word in an answer and its HTTP status.
var kinds = []struct {
	err    error
	word   string
	status int
}{
	{ErrRefused, "refused", http.StatusConflict},
	{ErrInvalid, "invalid", http.StatusUnprocessableEntity},
	{ErrTimeout, "timeout", http.StatusGatewayTimeout},
}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
}

// An Error is what a node said no with. It unwraps to its sentinel.
type Error struct {
	Text string
	Kind error // ErrRefused, ErrInvalid, ErrTimeout, ErrAbsent, context.Canceled or nil
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Kind }

// Refuse, Invalid and TimedOut make an Error of each kind.
func Refuse(text string) error   { return &Error{text, ErrRefused} }
func Invalid(text string) error  { return &Error{text, ErrInvalid} }
func TimedOut(text string) error { return &Error{text, ErrTimeout} }
