package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A LoadSpec says what load a client makes.
type LoadSpec struct {
	Target   string        // host:port
	Host     string        // of the requests; "": lab.example
	Path     string        // of the requests; "": /
	Post     int           // bytes of a body to POST; 0: GET
	Rate     int           // requests a second that open a connection of their own
	Kept     int           // connections that are kept
	KeptRate int           // requests a second on all of those together
	Deadline time.Duration // of one request
}

// RunLoad makes the load until ctx ends and writes a line per request to w as soon as it
// is over: kind ('n' for a connection of its own, 'k' for a kept one), start, end, outcome.
//
// Requests start by the clock, whatever became of those before, so that a lost packet of
// one (the kernel repeats it after a second) says nothing of when service was back.
func RunLoad(ctx context.Context, s LoadSpec, w io.Writer) error {
	l := newLoader(s, w)
	var running sync.WaitGroup
	if s.Rate > 0 {
		running.Go(func() { l.fresh(ctx) })
	}
	for i := range s.Kept {
		every := time.Second * time.Duration(s.Kept) / time.Duration(max(s.KeptRate, 1))
		running.Go(func() { l.kept(ctx, every, every*time.Duration(i)/time.Duration(s.Kept)) })
	}
	running.Wait()
	return nil
}

func newLoader(s LoadSpec, w io.Writer) *loader {
	host, path, method := cmp.Or(s.Host, "lab.example"), cmp.Or(s.Path, "/"), "GET"
	if s.Post > 0 {
		method = "POST"
	}
	l := &loader{
		spec:    s,
		out:     bufio.NewWriter(w),
		request: fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: lab\r\n", method, path, host),
		body:    strings.Repeat("x", s.Post),
	}
	if s.Post > 0 {
		l.request = fmt.Appendf(l.request, "Content-Length: %d\r\n", s.Post)
	}
	return l
}

type loader struct {
	spec    LoadSpec
	request []byte // without its last lines
	body    string

	mu  sync.Mutex
	out *bufio.Writer
}

// report writes a line. Nobody is left to tell if it cannot.
func (l *loader) report(kind byte, start, end Instant, o Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, "%c %d %d %c\n", kind, start, end, o)
	l.out.Flush()
}

// fresh starts requests on connections of their own until ctx ends.
func (l *loader) fresh(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	every := time.Second / time.Duration(l.spec.Rate)
	for next := Now(); ctx.Err() == nil; next = next.Add(every) {
		late := Now().Sub(next)
		if late < 0 {
			if pause(ctx, -late) != nil {
				return
			}
		} else if late > 100*time.Millisecond {
			next = Now() // this machine stood still: a burst would measure nothing
		}
		running.Go(func() { // ends by the deadline of its connection
			start := Now()
			o := l.once(ctx)
			if ctx.Err() == nil {
				l.report('n', start, Now(), o)
			}
		})
	}
}

func (l *loader) once(ctx context.Context) Outcome {
	c, err := l.dial(ctx)
	if err != nil {
		return outcome(err)
	}
	defer c.Close()
	return l.exchange(c, bufio.NewReaderSize(c, 1024), "Connection: close\r\n\r\n")
}

func (l *loader) dial(ctx context.Context) (net.Conn, error) {
	deadline := time.Now().Add(l.spec.Deadline)
	d := net.Dialer{Deadline: deadline, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", l.spec.Target)
	if err == nil {
		err = c.SetDeadline(deadline)
	}
	return c, err
}

// exchange sends a request and reads its whole answer.
func (l *loader) exchange(c net.Conn, r *bufio.Reader, end string) Outcome {
	if _, err := c.Write(append(append(l.request[:len(l.request):len(l.request)], end...), l.body...)); err != nil {
		return outcome(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return outcome(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return outcome(err)
	}
	if resp.StatusCode >= 500 {
		return ServerError
	}
	if resp.StatusCode != http.StatusOK {
		return Garbled
	}
	return OK
}

// kept sends requests on one connection, every so often, until ctx ends. A connection that
// the server closes between two requests is opened again and is no failure.
func (l *loader) kept(ctx context.Context, every, first time.Duration) {
	if pause(ctx, first) != nil {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var c net.Conn
	var r *bufio.Reader
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for ctx.Err() == nil {
		if c == nil {
			var err error
			if c, err = l.dial(ctx); err != nil {
				// What new connections meet is counted by fresh.
				if c = nil; pause(ctx, 20*time.Millisecond) != nil {
					return
				}
				continue
			}
			r = bufio.NewReaderSize(c, 1024)
		}
		start := Now()
		_ = c.SetDeadline(time.Now().Add(l.spec.Deadline)) // a closed connection fails right after
		o := l.exchange(c, r, "\r\n")
		if ctx.Err() != nil {
			return
		}
		l.report('k', start, Now(), o)
		if o != OK {
			c.Close()
			c = nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if c != nil && closed(c) {
			c.Close()
			c = nil
		}
	}
}

// closed reports whether the other side has ended a connection in good order.
func closed(c net.Conn) bool {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		ended = n == 0 && err == nil
		return true
	})
	return ended || err != nil
}

func outcome(err error) Outcome {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return TimedOut
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return Unreachable
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Reset
	}
	return Garbled
}
