package lab

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A SteadySpec is clients of HTTP/2 that ask by the clock, each on a connection of its own.
type SteadySpec struct {
	Target string // host:port
	TLS    bool
	Rate   int // requests a second, of all
	Conns  int
	Last   time.Duration // how long
	From   time.Duration // what is asked before does not count
}

// Steady has clients ask, and sums up what became of it.
func Steady(ctx context.Context, s SteadySpec) Flood {
	long, from := s.Last, s.From
	scheme := "http"
	protocols := new(http.Protocols)
	if s.TLS {
		scheme = "https"
		protocols.SetHTTP2(true)
	} else {
		protocols.SetUnencryptedHTTP2(true)
	}
	var mu sync.Mutex
	var times []time.Duration
	r := Flood{Offered: s.Rate}
	every := time.Second * time.Duration(s.Conns) / time.Duration(s.Rate)
	began := time.Now()
	var all sync.WaitGroup
	for i := range s.Conns {
		t := &http.Transport{Protocols: protocols, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: benchHost}} // of the drill's own proxy
		defer t.CloseIdleConnections()
		client := &http.Client{Transport: t, Timeout: floodPatience}
		all.Go(func() {
			for due := began.Add(every * time.Duration(i) / time.Duration(s.Conns)); due.Sub(began) < long; due = due.Add(every) {
				if pause(ctx, time.Until(due)) != nil {
					return
				}
				all.Go(func() { // by the clock, whatever the last one waits for
					sent := time.Now()
					status := fetch(client, scheme+"://"+s.Target+"/")
					took := time.Since(sent)
					if sent.Sub(began) < from {
						return
					}
					mu.Lock()
					defer mu.Unlock()
					switch status {
					case 200:
						r.Good++
						times = append(times, took)
					case 503:
						r.Shed++
					default:
						r.Failed++
					}
				})
			}
		})
	}
	all.Wait()
	per := func(n int) int { return int(float64(n) / (long - from).Seconds()) }
	r.Good, r.Shed, r.Failed = per(r.Good), per(r.Shed), per(r.Failed)
	slices.Sort(times)
	if n := len(times); n > 0 {
		r.P50, r.P99 = times[n/2], times[n*99/100]
	}
	return r
}

// fetch returns the status of an answer that came to its end, else 0.
func fetch(client *http.Client, url string) int {
	q, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return 0
	}
	q.Host = floodHost
	a, err := client.Do(q)
	if err != nil {
		return 0
	}
	defer a.Body.Close()
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		return 0
	}
	return a.StatusCode
}
