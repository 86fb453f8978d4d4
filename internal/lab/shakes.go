package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"os"
	"strconv"
	"sync"
	"time"
)

// shakeTurn makes requests on connections of their own, each with a full handshake of TLS 1.3,
// and reads what that cost. wrk cannot: it resumes the session of the connection before.
func (b *Bench) shakeTurn(ctx context.Context, space *Space, w workload, c *contestant) (Turn, error) {
	self, err := os.Executable()
	if err != nil {
		return Turn{}, err
	}
	argv := []string{"shakes", "--target", secureOf(c.listen).String(), "--host", benchHost, "--path", w.path,
		"--clients", strconv.Itoa(w.conns), "--for", max(b.Turn, time.Second).String()}
	return b.load(ctx, space, c, self, argv, parseOwn)
}

// Shakes has clients make one request after the other for so long, each on a connection of its
// own after a full handshake of TLS 1.3 with X25519.
func Shakes(ctx context.Context, s LoadSpec, clients int, long time.Duration) (WrkResult, error) {
	l := newLoader(s, nil)
	conf := &tls.Config{ServerName: s.Host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}}
	began := time.Now()
	var mu sync.Mutex // guards what follows
	var took []time.Duration
	errs := 0
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for ctx.Err() == nil && time.Since(began) < long {
				sent := time.Now()
				o := l.shakeOnce(ctx, conf)
				mu.Lock()
				if o == OK {
					took = append(took, time.Since(sent))
				} else {
					errs++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return summed(ctx, took, errs, began)
}

// shakeOnce has one request on a connection of its own.
func (l *loader) shakeOnce(ctx context.Context, conf *tls.Config) Outcome {
	tcp, err := l.dial(ctx)
	if err != nil {
		return outcome(err)
	}
	defer tcp.Close()
	conn := tls.Client(tcp, conf)
	defer conn.Close()
	return l.exchange(conn, bufio.NewReaderSize(conn, 1024), "Connection: close\r\n\r\n")
}
