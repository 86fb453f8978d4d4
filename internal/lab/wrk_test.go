package lab

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const wrkSaid = `Running 5s test @ http://127.0.0.1:8001/small
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.01ms    1.18ms  24.11ms   86.34%
    Req/Sec    16.43k     1.02k   18.89k    72.00%
  Latency Distribution
     50%    1.81ms
     75%    2.46ms
     90%    3.19ms
     99%  950.00us
  163467 requests in 5.01s, 33.05MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:  32639.22
Transfer/sec:      6.60MB
`

func TestWrkIsRead(t *testing.T) {
	got, err := parseWrk(wrkSaid)
	if err != nil {
		t.Fatal(err)
	}
	want := WrkResult{Requests: 163467, PerSec: 32639.22, P50: 1810 * time.Microsecond, P99: 950 * time.Microsecond, Errors: 11}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parseWrk (-want +got):\n%s", diff)
	}
	if _, err := parseWrk("unable to connect to 127.0.0.1:8001"); err == nil {
		t.Error("a run that failed was read without an error")
	}
}

func TestProcessStatIsRead(t *testing.T) {
	// A name may hold spaces and parentheses.
	got, err := parseStat("4001 (nginx: (worker) p) S 4000 3999 3999 0 -1 4194624 1 0 0 0 120 345 1 2 20 0 1 0 5 6 7 8")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(procStat{group: 3999, ticks: 468}, got, cmp.AllowUnexported(procStat{})); diff != "" {
		t.Errorf("parseStat (-want +got):\n%s", diff)
	}
	if _, err := parseStat("4001 (nginx"); err == nil {
		t.Error("half a line was read without an error")
	}
}
