package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A conn3 is a connection of HTTP/3 from a host, on a socket of its own. It is never replaced
// by another behind the client's back.
type conn3 struct {
	*http3.ClientConn
	quic *quic.Conn
	site string
	over func()
}

// dial3 connects from a network, within patience.
func dial3(ctx context.Context, from *Space, at netip.AddrPort, patience time.Duration) (*conn3, error) {
	var socket net.PacketConn
	err := from.Do(func() error {
		var err error
		socket, err = net.ListenUDP("udp", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t := &quic.Transport{Conn: socket}
	over := func() {
		t.Close()
		socket.Close()
	}
	conn, err := t.Dial(ctx, net.UDPAddrFromAddrPort(at), &tls.Config{InsecureSkipVerify: true, ServerName: benchHost, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		over()
		return nil, err
	}
	return &conn3{(&http3.Transport{}).NewClientConn(conn), conn, "https://" + benchHost, over}, nil
}

// ask has a request answered, within patience.
func (c *conn3) ask(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.get(ctx, "/")
}

// get asks for a path and reads the whole answer.
func (c *conn3) get(ctx context.Context, path string) error {
	q, err := http.NewRequestWithContext(ctx, "GET", c.site+path, nil)
	if err != nil {
		return err
	}
	r, err := c.RoundTrip(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", r.StatusCode)
	}
	return nil
}

func (c *conn3) close() {
	_ = c.CloseWithError(0x100, "") // H3_NO_ERROR; it may have ended
	c.over()
}

// live3 are connections of HTTP/3 that clients keep: a slow download on one in four, the rest
// idles until it has a request.
type live3 struct {
	host      *Host
	at        netip.AddrPort
	idle      []*conn3
	loading   []*conn3
	downloads []*download // of loading
}

// open adds n connections, each of which has had an answer.
func (l *live3) open(ctx context.Context, n int) error {
	for i := range n {
		c, err := dial3(ctx, l.host.space, l.at, 5*time.Second)
		if err != nil {
			return fmt.Errorf("open a connection of HTTP/3: %w", err)
		}
		if i%4 == 0 {
			l.loading = append(l.loading, c)
			l.downloads = append(l.downloads, beginDownload(ctx, &http.Client{Transport: c}, c.site, carriedSize, 4<<10))
			continue
		}
		l.idle = append(l.idle, c)
		if err := c.ask(ctx, 5*time.Second); err != nil {
			return fmt.Errorf("the first request of a connection of HTTP/3: %w", err)
		}
	}
	return nil
}

func (l *live3) size() int { return len(l.idle) + len(l.loading) }

// check has every idle connection used once, and returns what broke. The downloads go on all
// the time.
func (l *live3) check(ctx context.Context) (broken []error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, c := range l.idle {
		all.Go(func() {
			if err := c.ask(ctx, 5*time.Second); err != nil {
				mu.Lock()
				defer mu.Unlock()
				broken = append(broken, fmt.Errorf("a request after a while: %w", err))
			}
		})
	}
	all.Wait()
	for _, d := range l.downloads {
		select {
		case err := <-d.done:
			broken = append(broken, fmt.Errorf("a download: %w", err))
			d.done <- err
		default:
		}
	}
	return broken
}

// finish uses all once more and reads the downloads to their end.
func (l *live3) finish(ctx context.Context) []error {
	broken := l.check(ctx)
	for _, d := range l.downloads {
		if err := d.end(ctx); err != nil {
			broken = append(broken, err)
		}
	}
	return broken
}

// ended returns which connections were not closed in good order at the end of a drain.
func (l *live3) ended(ctx context.Context) (broken []error) {
	for _, c := range append(l.idle, l.loading...) {
		select {
		case <-c.quic.Context().Done():
		case <-time.After(time.Second):
		case <-ctx.Done():
			return append(broken, ctx.Err())
		}
		err := context.Cause(c.quic.Context())
		var app *quic.ApplicationError
		if !errors.As(err, &app) || !app.Remote || app.ErrorCode != 0x100 {
			broken = append(broken, fmt.Errorf("the end of a drain ends a connection with %v, want H3_NO_ERROR", err))
		}
	}
	return broken
}

func (l *live3) close() {
	for _, d := range l.downloads {
		d.cancel()
	}
	for _, c := range append(l.idle, l.loading...) {
		c.close()
	}
	l.idle, l.loading, l.downloads = nil, nil, nil
}

// fresh3 are clients that connect by HTTP/3, have one request answered, and go.
type fresh3 struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	asked  int
	failed []error
}

// beginFresh3 begins rate of them a second, by the clock, until end is called.
func beginFresh3(ctx context.Context, h *Host, at netip.AddrPort, rate int) *fresh3 {
	begin, stop := context.WithCancel(ctx)
	f := &fresh3{stop: stop}
	f.running.Go(func() { // ends with end, or ctx
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-begin.Done():
				return
			case <-tick.C:
			}
			f.running.Go(func() { // ends by its patience
				err := f.once(ctx, h, at)
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.asked++; err != nil {
					f.failed = append(f.failed, fmt.Errorf("a new connection: %w", err))
				}
			})
		}
	})
	return f
}

func (f *fresh3) once(ctx context.Context, h *Host, at netip.AddrPort) error {
	c, err := dial3(ctx, h.space, at, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.close()
	return c.ask(ctx, 5*time.Second)
}

// end stops, and returns how many there were and what failed.
func (f *fresh3) end() (int, []error) {
	f.stop()
	f.running.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked, f.failed
}

// labelled sums up a metric over all its labels, or over those that are behind the ones that name
// has already.
func labelled(page, name string) (sum float64) {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, name); !ok || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, ",") {
			continue
		}
		if i := strings.LastIndexByte(strings.TrimSpace(line), ' '); i > 0 {
			v, _ := strconv.ParseFloat(strings.TrimSpace(line)[i+1:], 64) // a page of ours
			sum += v
		}
	}
	return sum
}
