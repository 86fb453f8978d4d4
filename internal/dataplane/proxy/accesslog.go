package proxy

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"proxyd/internal/dataplane"
)

const (
	// maxAccessBytes is what may wait to be written. Lines beyond it are dropped and
	// counted: a slow disk never holds a request up.
	maxAccessBytes = 1 << 20

	// accessDelay gathers lines, so that a busy node makes few writes.
	accessDelay = 5 * time.Millisecond
)

// accessLog writes a JSON line for each exchange, from a goroutine of its own. Nobody
// else ever waits for the output.
type accessLog struct {
	on      atomic.Bool // lines go somewhere: no line is made for nobody
	dropped atomic.Uint64
	failed  atomic.Uint64
	log     *slog.Logger

	mu     sync.Mutex // guards what follows
	now    batch      // where lines go
	before []batch    // of earlier outputs, not written yet
	spare  []byte     // an empty buffer for now
	closed bool

	wake chan struct{} // holds one
	done chan struct{} // closed when the writer has ended
}

// A batch is lines that wait for one output.
type batch struct {
	lines []byte
	out   io.Writer // nil: off
	file  *os.File  // out, if it is ours to close
}

func newAccessLog(log *slog.Logger) *accessLog {
	a := &accessLog{log: log, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go a.write() // ends after close
	return a
}

// exchange writes the line of x. It uses the room after x.Text, which End is the last
// to need.
func (a *accessLog) exchange(x *dataplane.Exchange, node string, status int, now time.Time) {
	from := len(x.Text)
	l := line(x.Text)
	l = l.begin(now, node, x.Listener.Name, x.Mark.ClientIP)
	q := &x.Request
	l = l.text("proto", protoOf(q.Minor)).bytes("method", q.MethodText).bytes("host", q.Host).bytes("path", q.Path)
	l = l.number("status", int64(status))
	if x.Mark.Reason != "" {
		l = l.text("reason", x.Mark.Reason)
	}
	l = l.text("route", x.Route.Name)
	if x.Route.Pool != "" {
		l = l.text("pool", x.Route.Pool)
	}
	if x.Server != nil {
		l = l.text("server", x.Server.Name)
	}
	l = l.number("tries", int64(x.Attempt)).number("bytes_in", x.Bytes.In).number("bytes_out", x.Bytes.Out)
	l = l.seconds("t_total", now.Sub(x.Times.Start))
	if !x.Times.Sent.IsZero() {
		l = l.seconds("t_wait", x.Times.Sent.Sub(x.Times.Head)-x.Times.Dial).seconds("t_connect", x.Times.Dial)
		if !x.Times.FirstByte.IsZero() {
			l = l.seconds("t_ttfb", x.Times.FirstByte.Sub(x.Times.Sent))
		}
	}
	if len(x.Mark.RequestID) > 0 {
		l = l.bytes("request_id", x.Mark.RequestID)
	}
	if x.Mark.Trace.On {
		l = l.hex("trace_id", x.Mark.Trace.ID[:])
	}
	if v := q.Header.Get(dataplane.UserAgent); v != nil {
		l = l.bytes("ua", v)
	}
	if v := q.Header.Get(dataplane.Referer); v != nil {
		l = l.bytes("referer", v)
	}
	l = l.number("conn_id", int64(x.ConnID)).number("config", int64(x.Config)).end()
	x.Text = l[:from]
	a.put(l[from:])
}

// refused writes the line of bytes that never became a request.
func (a *accessLog) refused(d *dataplane.Listener, client netip.AddrPort, node string, m *dataplane.Malformed, now time.Time) {
	l := line(nil).begin(now, node, d.Name, client.Addr().Unmap())
	l = l.number("status", int64(m.Status)).text("reason", m.Reason)
	if m.Detail != "" {
		l = l.text("detail", m.Detail)
	}
	a.put(l.end())
}

// put hands a line to the writer, or drops it. It keeps nothing of b.
func (a *accessLog) put(b []byte) {
	a.mu.Lock()
	switch {
	case a.now.out == nil || a.closed:
		a.mu.Unlock()
		return
	case len(a.now.lines)+len(b) > maxAccessBytes:
		a.mu.Unlock()
		a.dropped.Add(1)
		return
	}
	first := len(a.now.lines) == 0 // else the writer knows
	a.now.lines = append(a.now.lines, b...)
	a.mu.Unlock()
	if first {
		a.rouse()
	}
}

func (a *accessLog) rouse() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// to sends the lines from now on to out (nil: nowhere). What waits is still written
// where it would have gone; then a file that was written to before is closed.
func (a *accessLog) to(out io.Writer, file *os.File) {
	a.mu.Lock()
	a.before = append(a.before, a.now)
	a.now = batch{out: out, file: file}
	a.on.Store(out != nil)
	a.mu.Unlock()
	a.rouse()
}

// close ends the writer when what waits is written, and returns then or when ctx ends.
func (a *accessLog) close(ctx context.Context) {
	a.to(nil, nil)
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.rouse()
	select {
	case <-a.done:
	case <-ctx.Done():
	}
}

// write is the writer's goroutine. It ends when close has been called and all is
// written.
func (a *accessLog) write() {
	defer close(a.done)
	var told time.Time
	for range a.wake {
		a.mu.Lock()
		last := a.closed
		a.mu.Unlock()
		if !last {
			time.Sleep(accessDelay)
		}
		for _, b := range a.take() {
			if err := b.write(); err != nil {
				a.failed.Add(1)
				if now := time.Now(); now.Sub(told) > time.Minute {
					told = now
					a.log.Warn("access log cannot be written", "err", err)
				}
			}
			a.mu.Lock()
			a.spare = b.lines[:0]
			a.mu.Unlock()
		}
		if last {
			return
		}
	}
}

// take returns all that waits, oldest first, and leaves the newest output in place.
func (a *accessLog) take() []batch {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := append(a.before, batch{lines: a.now.lines, out: a.now.out})
	a.before, a.now.lines, a.spare = nil, a.spare, nil
	return all
}

// write writes the lines and closes the file if it is ours.
func (b batch) write() (err error) {
	if len(b.lines) > 0 && b.out != nil {
		_, err = b.out.Write(b.lines)
	}
	if b.file != nil {
		err = errors.Join(err, b.file.Close())
	}
	return err
}

func protoOf(minor uint8) string {
	if minor == 0 {
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// A line is a JSON object that grows. Names are ours and need no escaping.
type line []byte

func (l line) begin(now time.Time, node, listener string, client netip.Addr) line {
	l = append(l, `{"ts":"`...)
	l = now.UTC().AppendFormat(l, "2006-01-02T15:04:05.000000Z07:00")
	l = append(l, '"')
	l = l.text("node", node).text("listener", listener)
	l = append(l, `,"client":"`...)
	if client.IsValid() {
		l = client.WithZone("").AppendTo(l)
	}
	return append(l, '"')
}

func (l line) name(name string) line {
	return append(append(append(l, ',', '"'), name...), '"', ':')
}

func (l line) text(name, value string) line {
	return escape(append(l.name(name), '"'), value)
}

func (l line) bytes(name string, value []byte) line {
	return escape(append(l.name(name), '"'), value)
}

func (l line) number(name string, n int64) line { return strconv.AppendInt(l.name(name), n, 10) }

func (l line) hex(name string, b []byte) line {
	return append(hex.AppendEncode(append(l.name(name), '"'), b), '"')
}

// seconds writes d with six places.
func (l line) seconds(name string, d time.Duration) line {
	us := max(d.Microseconds(), 0)
	l = append(strconv.AppendInt(l.name(name), us/1e6, 10), '.')
	for unit := int64(100_000); unit > 0; unit /= 10 {
		l = append(l, byte('0'+us/unit%10))
	}
	return l
}

func (l line) end() line { return append(l, '}', '\n') }

// escape appends value and the closing quote as JSON wants it. Bytes that are no UTF-8
// become the replacement character (B10).
func escape[T string | []byte](l line, value T) line {
	const hex = "0123456789abcdef"
	from := 0 // value[from:i] is plain and not copied yet
	for i := 0; i < len(value); {
		c := value[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		l = append(l, value[from:i]...)
		n := 1
		switch {
		case c == '"' || c == '\\':
			l = append(l, '\\', c)
		case c < utf8.RuneSelf:
			l = append(l, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			var four [4]byte
			var r rune
			r, n = utf8.DecodeRune(four[:copy(four[:], value[i:])])
			l = utf8.AppendRune(l, r)
		}
		i += n
		from = i
	}
	return append(append(l, value[from:]...), '"')
}
