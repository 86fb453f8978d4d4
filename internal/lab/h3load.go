package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// inH3 is where a contestant speaks HTTP/3.
func inH3(listen netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(listen.Addr(), listen.Port()+200)
}

// h3Turn asks one contestant by HTTP/3, as fast as it answers, and reads what that cost it. The
// client is quic-go's, in this process: it takes more of the machine than the proxy does, so
// requests a second say little, and processor time is what is compared.
func (b *Bench) h3Turn(ctx context.Context, space *Space, w workload, c *contestant) (Turn, error) {
	conns := make([]*conn3, 0, w.conns)
	defer func() {
		for _, k := range conns {
			k.close()
		}
	}()
	for range w.conns {
		k, err := dial3(ctx, space, inH3(c.listen), 10*time.Second)
		if err != nil {
			return Turn{}, fmt.Errorf("connect by HTTP/3: %w", err)
		}
		conns = append(conns, k)
	}
	before, err := usage(c.process.PID())
	if err != nil {
		return Turn{}, err
	}
	began := time.Now()
	r, err := load3(ctx, conns, w, b.Turn)
	if err != nil {
		return Turn{}, err
	}
	took := time.Since(began)
	after, err := usage(c.process.PID())
	if err != nil {
		return Turn{}, err
	}
	r.PerSec = float64(r.Requests) / took.Seconds()
	return Turn{WrkResult: r, CPU: float64((after.CPU - before.CPU).Microseconds()) / float64(r.Requests)}, nil
}

// load3 has all streams of the connections busy for a while. PerSec is not filled in.
func load3(ctx context.Context, conns []*conn3, w workload, d time.Duration) (r WrkResult, err error) {
	end := time.Now().Add(d)
	var mu sync.Mutex // guards r, took and wrong
	var took []time.Duration
	var wrong error
	var all sync.WaitGroup
	for _, c := range conns {
		for range w.streams {
			all.Go(func() { // ends with end
				var mine []time.Duration
				errs := 0
				for began := time.Now(); began.Before(end) && ctx.Err() == nil; {
					err := c.get(ctx, w.path)
					now := time.Now()
					if err == nil {
						mine = append(mine, now.Sub(began))
					} else {
						errs++
						mu.Lock()
						wrong = err
						mu.Unlock()
						if pause(ctx, 10*time.Millisecond) != nil {
							break
						}
					}
					began = now
				}
				mu.Lock()
				defer mu.Unlock()
				took, r.Errors = append(took, mine...), r.Errors+errs
			})
		}
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if len(took) == 0 {
		return r, errors.Join(errors.New("no request was answered"), wrong)
	}
	slices.Sort(took)
	r.Requests = len(took)
	r.P50, r.P99 = took[len(took)/2], took[len(took)*99/100]
	return r, nil
}
