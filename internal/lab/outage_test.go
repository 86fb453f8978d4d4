package lab

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

// every returns successes that start each 5 ms and take 1 ms, from one time to another.
func every5(from, to time.Duration) []Attempt {
	var out []Attempt
	for at := from; at < to; at += 5 * ms {
		out = append(out, Attempt{Start: Instant(at), End: Instant(at + ms), Outcome: OK})
	}
	return out
}

func TestOutageIsTheLongestSilenceLessTheUsual(t *testing.T) {
	steady := every5(0, 1000*ms)
	broken := append(every5(0, 300*ms), every5(380*ms, 1000*ms)...)
	failing := append(append([]Attempt(nil), broken...),
		Attempt{Start: Instant(310 * ms), End: Instant(311 * ms), Outcome: Refused},
		Attempt{Start: Instant(320 * ms), End: Instant(321 * ms), Outcome: OK, Kept: true})
	for _, c := range []struct {
		name     string
		attempts []Attempt
		from, to time.Duration
		want     time.Duration
	}{
		{"nothing happens", steady, 300 * ms, 600 * ms, 0},
		{"a silence inside", broken, 290 * ms, 600 * ms, 80 * ms},
		{"a silence that began before the span", broken, 350 * ms, 600 * ms, 80 * ms},
		{"a silence that ends after the span", broken, 250 * ms, 350 * ms, 80 * ms},
		{"failures and kept connections break no silence", failing, 290 * ms, 600 * ms, 80 * ms},
		{"no service again", every5(0, 300*ms), 290 * ms, 1301 * ms, 1000 * ms},
		{"never any service", nil, 0, 700 * ms, 700 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Outage(c.attempts, Instant(c.from), Instant(c.to), 5*ms)
			if got != c.want {
				t.Errorf("Outage() = %v, want %v", got, c.want)
			}
		})
	}
}

func TestOrderOfAttemptsDoesNotMatter(t *testing.T) {
	a := append(every5(0, 300*ms), every5(400*ms, 600*ms)...)
	a[0], a[len(a)-1] = a[len(a)-1], a[0]
	if got, want := Outage(a, Instant(200*ms), Instant(500*ms), 5*ms), 100*ms; got != want {
		t.Errorf("Outage() = %v, want %v", got, want)
	}
	if got, want := Usual(a), 5*ms; got != want {
		t.Errorf("Usual() = %v, want %v", got, want)
	}
}

func TestStallIsOfTheClient(t *testing.T) {
	failing := every5(300*ms, 380*ms)
	for i := range failing {
		failing[i].Outcome = Refused
	}
	served := append(every5(0, 300*ms), every5(380*ms, 1000*ms)...)
	if got, want := Stall(served, 5*ms), 80*ms; got != want {
		t.Errorf("nothing was asked for a while: Stall() = %v, want %v", got, want)
	}
	if got := Stall(append(served, failing...), 5*ms); got != 0 {
		t.Errorf("asked all the time: Stall() = %v, want 0", got)
	}
}

func TestFailuresAreCountedByKind(t *testing.T) {
	a := []Attempt{{Outcome: OK}, {Outcome: Refused}, {Outcome: Refused}, {Outcome: Reset, Kept: true}, {Outcome: ServerError}}
	if diff := cmp.Diff(map[Outcome]int{Refused: 2, ServerError: 1}, Failures(a, false)); diff != "" {
		t.Errorf("new connections (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[Outcome]int{Reset: 1}, Failures(a, true)); diff != "" {
		t.Errorf("kept connections (-want +got):\n%s", diff)
	}
}

func TestQuantileIsNearestRank(t *testing.T) {
	for _, c := range []struct {
		values []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{7}, 0.99, 7},
		{[]time.Duration{3, 1, 2}, 0.5, 2},
		{[]time.Duration{4, 3, 1, 2}, 0.5, 2},
		{[]time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0.99, 10},
	} {
		if got := Quantile(c.values, c.q); got != c.want {
			t.Errorf("Quantile(%v, %v) = %v, want %v", c.values, c.q, got, c.want)
		}
	}
}

func TestAttemptIsReadAsWritten(t *testing.T) {
	got, err := parseAttempt("k 1000 2500 x")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Attempt{Start: 1000, End: 2500, Kept: true, Outcome: Reset}, got); diff != "" {
		t.Errorf("parseAttempt (-want +got):\n%s", diff)
	}
	if _, err := parseAttempt("k 1000"); err == nil {
		t.Error("half a line was read without an error")
	}
}

func FuzzParseAttempt(f *testing.F) {
	f.Add("n 1 2 o")
	f.Add("k -1 99999999999999999999 t")
	f.Fuzz(func(t *testing.T, line string) { _, _ = parseAttempt(line) })
}

func TestPercentiles(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[99-i] = float64(i + 1)
	}
	for _, c := range []struct {
		values []float64
		p      int
		want   float64
	}{{nil, 99, 0}, {[]float64{7}, 99, 7}, {[]float64{3, 1, 2}, 50, 2}, {hundred, 99, 99}, {hundred[:20], 99, 100}, {hundred, 50, 50}} {
		if got := percentile(c.values, c.p); got != c.want {
			t.Errorf("%d of 100 of %v: %v, want %v", c.p, c.values, got, c.want)
		}
	}
}
