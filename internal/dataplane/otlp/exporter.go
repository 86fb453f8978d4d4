// Package otlp sends spans to a collector: OTLP over HTTP, in its JSON form. Nobody who
// makes a span ever waits: what the collector cannot take is dropped and counted.
package otlp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxWaiting = 4096            // spans that wait; more are dropped
	maxBatch   = 512             // spans of one request
	gather     = time.Second     // how long spans are collected
	patience   = 5 * time.Second // for the collector's answer
	tellEvery  = time.Minute     // how often it is said that the collector does not take spans
)

// An Exporter sends the spans of one process. It outlives reloads.
type Exporter struct {
	Sent    atomic.Uint64 // spans that the collector took
	Dropped atomic.Uint64 // spans that found no room, or were there when it was turned off
	Failed  atomic.Uint64 // spans that the collector did not take

	log    *slog.Logger
	client http.Client
	to     atomic.Pointer[target] // nil: off
	spans  chan Span
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// A target is where spans go, and who says so.
type target struct{ url, node, cluster string }

// New returns an Exporter that is off. Close ends it.
func New(log *slog.Logger) *Exporter {
	ctx, stop := context.WithCancel(context.Background())
	e := &Exporter{log: log, client: http.Client{Timeout: patience}, spans: make(chan Span, maxWaiting), stop: stop}
	e.done.Go(func() { e.run(ctx) }) // ends with Close
	return e
}

// Use sends spans to the collector at url ("": nowhere) from now on.
func (e *Exporter) Use(url, node, cluster string) {
	if url == "" {
		e.to.Store(nil)
		return
	}
	if !strings.HasSuffix(url, "/v1/traces") {
		url = strings.TrimSuffix(url, "/") + "/v1/traces"
	}
	e.to.Store(&target{url: url, node: node, cluster: cluster})
}

// On reports whether spans go anywhere: none is made for nobody.
func (e *Exporter) On() bool { return e.to.Load() != nil }

// Export takes a span, or drops it. It never waits.
func (e *Exporter) Export(s Span) {
	select {
	case e.spans <- s:
	default:
		e.Dropped.Add(1)
	}
}

// Close sends what waits and ends the exporter; at the latest when ctx ends.
func (e *Exporter) Close(ctx context.Context) {
	e.stop()
	done := make(chan struct{})
	go func() { // ends with run
		e.done.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// run gathers spans and sends them. It ends with ctx, after what waits.
func (e *Exporter) run(ctx context.Context) {
	var due <-chan time.Time // when what is gathered is sent; nil while there is nothing
	batch := make([]Span, 0, maxBatch)
	var told time.Time
	flush := func() {
		if len(batch) == 0 {
			return
		}
		switch err := e.send(batch); {
		case errors.Is(err, errOff):
			e.Dropped.Add(uint64(len(batch)))
		case err != nil:
			e.Failed.Add(uint64(len(batch)))
			if now := time.Now(); now.Sub(told) >= tellEvery {
				told = now
				e.log.Warn("collector does not take spans, they are lost", "err", err)
			}
		default:
			e.Sent.Add(uint64(len(batch)))
		}
		clear(batch)
		batch, due = batch[:0], nil
	}
	for {
		select {
		case s := <-e.spans:
			if batch = append(batch, s); len(batch) == 1 {
				due = time.After(gather)
			}
			if len(batch) == maxBatch {
				flush()
			}
		case <-due:
			flush()
		case <-ctx.Done():
			for len(e.spans) > 0 && len(batch) < maxBatch { // one more request, not a queue of them
				batch = append(batch, <-e.spans)
			}
			flush()
			return
		}
	}
}

// errOff says that the exporter was turned off while spans waited.
var errOff = errors.New("no collector")

// send posts a batch.
func (e *Exporter) send(batch []Span) error {
	to := e.to.Load()
	if to == nil {
		return errOff
	}
	body, err := json.Marshal(request(to, batch))
	if err != nil {
		return err
	}
	r, err := e.client.Post(to.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 64<<10)) // so that the connection is kept
	if r.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", to.url, r.Status)
	}
	return nil
}
