package upstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// probeLimits bound what a check reads of an answer.
var probeLimits = http1.Limits{HeaderBytes: 32 << 10, Fields: 100}

// A checker asks one server for its health at the interval of its pool.
type checker struct {
	*config.Check
	env     Env
	pool    *Pool
	server  *Server
	request []byte
	wanted  statusSet
	buf     []byte
}

func newChecker(p *Pool, s *Server, e Env) *checker {
	conf := p.Config.Check
	host := conf.Host
	if host == "" {
		host = s.Name
	}
	return &checker{
		Check:   conf,
		env:     e,
		pool:    p,
		server:  s,
		request: []byte("GET " + conf.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: proxyd-check\r\nAccept: */*\r\nConnection: close\r\n\r\n"),
		wanted:  parseStatusSet(conf.Status),
	}
}

// run checks until ctx ends. A server that was never checked is checked at once; one
// that was adopted waits for a part of an interval, so that a reload is no burst.
func (c *checker) run(ctx context.Context) {
	c.server.mu.Lock()
	known := c.server.health.probed
	c.server.mu.Unlock()
	wait := time.Duration(0)
	if known {
		wait = time.Duration(rand.Int64N(int64(c.Interval)))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wrong := c.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		c.learn(wrong)
		// A tenth of jitter either way keeps nodes from asking in step.
		timer.Reset(c.Interval - c.Interval/10 + time.Duration(rand.Int64N(int64(c.Interval/5)+1)))
	}
}

func (c *checker) learn(wrong string) {
	result := CheckPassed
	if wrong != "" {
		result = CheckFailed
	}
	c.server.Checks[result].Add(1)
	changed := false
	c.server.change(func(h *Health) { changed = h.Probe(wrong, c.Check) })
	switch {
	case changed && wrong == "":
		c.env.Log.Info("server is up", "pool", c.pool.Name, "server", c.server.Name)
	case changed:
		c.env.Log.Warn("server is down", "pool", c.pool.Name, "server", c.server.Name, "reason", wrong)
	}
}

// probe asks once and returns what is wrong, or "".
func (c *checker) probe(ctx context.Context) string {
	addr := c.server.Addr()
	if !addr.IsValid() {
		return "its name does not resolve"
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	conn, err := c.env.Dial(ctx, addr)
	if err != nil {
		c.server.rotate()
		return wording("connect", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(c.request); err != nil {
		return wording("send", err)
	}
	status, err := c.readStatus(conn)
	if err != nil {
		return wording("read", err)
	}
	if !c.wanted.has(status) {
		return "status " + strconv.Itoa(status)
	}
	return ""
}

// readStatus reads a whole answer's head, past interim ones, and returns its status.
func (c *checker) readStatus(conn net.Conn) (int, error) {
	var r dataplane.Response
	buf := c.buf[:0]
	for {
		r.Reset()
		n, err := http1.ParseResponse(buf, &r, false, probeLimits)
		if err != nil {
			return 0, err
		}
		if n > 0 && r.Status >= 200 {
			return r.Status, nil
		}
		if n > 0 {
			buf = buf[:copy(buf, buf[n:])]
			continue
		}
		buf = slices.Grow(buf, 1024)
		n, err = conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		c.buf = buf
		if n == 0 && err != nil {
			return 0, err
		}
	}
}

// wording is a short text for the operator.
func wording(doing string, err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return doing + ": timed out"
	}
	if bad := (*dataplane.Malformed)(nil); errors.As(err, &bad) {
		return "no acceptable HTTP: " + bad.Reason
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return fmt.Sprintf("%s: %s", doing, text)
}
