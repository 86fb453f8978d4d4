package lab

import (
	"testing"
	"time"
)

func TestWhatH2loadSaysIsRead(t *testing.T) {
	const text = `
finished in 5.00s, 7227.40 req/s, 910.92KB/s
requests: 36140 total, 36652 started, 36140 done, 36137 succeeded, 3 failed, 0 errored, 0 timeout
status codes: 36137 2xx, 0 3xx, 3 4xx, 0 5xx
                     min         max         mean         sd        +/- sd
time for request:     1.20ms    112.31ms     23.97ms      6.08ms    73.14%
`
	got, err := parseH2load(text)
	want := WrkResult{Requests: 36137, PerSec: 7227.4, P50: 23970 * time.Microsecond, P99: 112310 * time.Microsecond, Errors: 3}
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if _, err := parseH2load("unable to connect"); err == nil {
		t.Error("no error for what says nothing")
	}
}
