package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A PaceSpec says how clients make requests at a fixed rate.
type PaceSpec struct {
	Conns int           // at once
	Rate  int           // requests a second, of all together
	Last  time.Duration // how long
	Each  bool          // a connection for each request, not kept ones
}

// pacedTurn makes requests at a fixed rate, and reads what that cost.
func (b *Bench) pacedTurn(ctx context.Context, space *Space, w workload, c *contestant) (Turn, error) {
	self, err := os.Executable()
	if err != nil {
		return Turn{}, err
	}
	argv := []string{"pace", "--target", c.listen.String(), "--host", benchHost, "--path", w.path, "--post", strconv.Itoa(w.post),
		"--conns", strconv.Itoa(w.conns), "--rate", strconv.Itoa(w.rate), "--for", max(b.Turn, time.Second).String()}
	if slices.Contains(w.head, "Connection: close") {
		argv = append(argv, "--each")
	}
	return b.load(ctx, space, c, self, argv, parseOwn)
}

// parseOwn reads what a load generator of this program has written.
func parseOwn(out string) (r WrkResult, err error) {
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return r, fmt.Errorf("read of our own load generator: %w", err)
	}
	return r, nil
}

// Pace spreads requests evenly over connections and over time, and says what became of them.
// A request that comes late because the one before it took long is sent at once.
func Pace(ctx context.Context, s LoadSpec, p PaceSpec) (WrkResult, error) {
	l := newLoader(s, nil)
	every := time.Second * time.Duration(p.Conns) / time.Duration(max(p.Rate, 1))
	began := time.Now()
	var mu sync.Mutex // guards what follows
	var took []time.Duration
	errs := 0
	var all sync.WaitGroup
	for i := range p.Conns {
		all.Go(func() {
			own, failed := l.pace(ctx, every, began.Add(every*time.Duration(i)/time.Duration(p.Conns)), began.Add(p.Last), p.Each)
			mu.Lock()
			took, errs = append(took, own...), errs+failed
			mu.Unlock()
		})
	}
	all.Wait()
	return summed(ctx, took, errs, began)
}

// summed says what became of requests that began at a moment: how long each of those took that were
// answered, in any order, and how many failed.
func summed(ctx context.Context, took []time.Duration, errs int, began time.Time) (WrkResult, error) {
	if len(took) == 0 {
		return WrkResult{}, errors.Join(ctx.Err(), fmt.Errorf("no request was answered, %d failed", errs))
	}
	slices.Sort(took)
	n := len(took)
	return WrkResult{
		Requests: n, PerSec: float64(n) / time.Since(began).Seconds(),
		P50: took[n/2], P99: took[n*99/100], Errors: errs,
	}, nil
}

// pace makes a request every so often until an end, and returns how long each took and how
// many failed.
func (l *loader) pace(ctx context.Context, every time.Duration, next, end time.Time, each bool) (took []time.Duration, failed int) {
	took = make([]time.Duration, 0, int(time.Until(end)/every)+1)
	last := "\r\n"
	if each {
		last = "Connection: close\r\n\r\n"
	}
	var c net.Conn
	r := bufio.NewReaderSize(strings.NewReader(""), 16<<10)
	drop := func() {
		if c != nil {
			c.Close()
			c = nil
		}
	}
	defer drop()
	for ; next.Before(end); next = next.Add(every) {
		if pause(ctx, time.Until(next)) != nil {
			break
		}
		sent := time.Now()
		var err error
		if c == nil {
			if c, err = l.dial(ctx); err != nil {
				failed++
				continue
			}
			r.Reset(c)
		}
		_ = c.SetDeadline(sent.Add(l.spec.Deadline)) // a closed connection fails right after
		if l.exchange(c, r, last) != OK {
			failed++
			drop()
			continue
		}
		took = append(took, time.Since(sent))
		if each {
			drop()
		}
	}
	return took, failed
}
