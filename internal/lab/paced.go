package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// pacedTurn makes requests at a fixed rate on kept connections, and reads what that cost.
func (b *Bench) pacedTurn(ctx context.Context, space *Space, w workload, c *contestant) (Turn, error) {
	l := newLoader(LoadSpec{Target: c.listen.String(), Host: benchHost, Path: w.path, Deadline: 10 * time.Second}, nil)
	conns, err := openIdle(ctx, space, c.listen, w.conns)
	if err != nil {
		return Turn{}, err
	}
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	before, err := usage(c.process.PID())
	if err != nil {
		return Turn{}, err
	}
	t, err := l.paced(ctx, conns, w.rate, max(b.Turn, time.Second))
	if err != nil {
		return t, err
	}
	after, err := usage(c.process.PID())
	if err != nil {
		return t, err
	}
	t.CPU = float64((after.CPU - before.CPU).Microseconds()) / float64(t.Requests)
	return t, nil
}

// paced spreads rate requests a second evenly over the connections and over time.
func (l *loader) paced(ctx context.Context, conns []net.Conn, rate int, long time.Duration) (Turn, error) {
	every := time.Second * time.Duration(len(conns)) / time.Duration(max(rate, 1))
	began := time.Now()
	var mu sync.Mutex
	var took []time.Duration
	errs := 0
	var all sync.WaitGroup
	for i, conn := range conns {
		all.Go(func() {
			own := make([]time.Duration, 0, int(long/every)+1)
			failed := 0
			r := bufio.NewReaderSize(conn, 4096)
			for next := began.Add(every * time.Duration(i) / time.Duration(len(conns))); next.Sub(began) < long; next = next.Add(every) {
				if pause(ctx, time.Until(next)) != nil {
					break
				}
				sent := time.Now()
				if l.exchange(conn, r, "\r\n") != OK {
					failed++
					break
				}
				own = append(own, time.Since(sent))
			}
			mu.Lock()
			took, errs = append(took, own...), errs+failed
			mu.Unlock()
		})
	}
	all.Wait()
	if len(took) == 0 {
		return Turn{}, errors.Join(ctx.Err(), fmt.Errorf("no request was answered, %d failed", errs))
	}
	slices.Sort(took)
	n := len(took)
	return Turn{WrkResult: WrkResult{
		Requests: n, PerSec: float64(n) / time.Since(began).Seconds(),
		P50: took[n/2], P99: took[n*99/100], Errors: errs,
	}}, nil
}
