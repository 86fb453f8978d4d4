package lab

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

// keepFor bounds what a Load remembers.
const keepFor = 10 * time.Minute

// A Load is a client on the stage that sends requests to the VIP, in a process of its own,
// and the record of how they went.
type Load struct {
	spec    LoadSpec
	process *Process

	mu       sync.Mutex
	attempts []Attempt // in the order in which they ended
	total    int       // since the first success
	failed   int       // of those
	bad      error
}

// Load starts a client. It ends with Close, or with the stage.
func (s *Stage) Load(spec LoadSpec) (*Load, error) {
	if spec.Target == "" {
		spec.Target = s.VIP.String() + ":80"
	}
	if spec.Deadline == 0 {
		spec.Deadline = time.Second
	}
	p, out, err := s.client.start(command{
		name: "client",
		argv: []string{s.lab, "load",
			"--target", spec.Target,
			"--rate", strconv.Itoa(spec.Rate),
			"--kept", strconv.Itoa(spec.Kept),
			"--kept-rate", strconv.Itoa(spec.KeptRate),
			"--deadline", spec.Deadline.String()},
		log:  s.dir.file("client.log"),
		pipe: true,
	})
	if err != nil {
		return nil, err
	}
	l := &Load{spec: spec, process: p}
	go func() { // ends with the process
		defer out.Close()
		l.read(out)
	}()
	return l, nil
}

func (l *Load) read(from io.Reader) {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		a, err := parseAttempt(lines.Text())
		l.mu.Lock()
		if err != nil {
			l.bad = err
		} else {
			l.attempts = append(l.attempts, a)
			l.count(a)
			l.forget(a.End.Add(-keepFor))
		}
		l.mu.Unlock()
	}
}

func (l *Load) count(a Attempt) {
	if a.Outcome == OK {
		l.total++
	} else if l.total > 0 {
		l.total++
		l.failed++
	}
}

// Totals returns how many requests there were since the first that succeeded, and how many
// of them failed.
func (l *Load) Totals() (requests, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total, l.failed
}

// forget drops what ended before an instant, now and then.
func (l *Load) forget(before Instant) {
	n := len(l.attempts)
	if n%4096 != 0 {
		return
	}
	i := 0
	for i < n && l.attempts[i].End < before {
		i++
	}
	l.attempts = append(l.attempts[:0:0], l.attempts[i:]...)
}

func parseAttempt(line string) (Attempt, error) {
	var kind, outcome byte
	var a Attempt
	if _, err := fmt.Sscanf(line, "%c %d %d %c", &kind, &a.Start, &a.End, &outcome); err != nil {
		return a, fmt.Errorf("line %q of the client: %w", line, err)
	}
	a.Kept, a.Outcome = kind == 'k', Outcome(outcome)
	return a, nil
}

// Between returns the requests that ended after one instant and not after another.
func (l *Load) Between(from, to Instant) []Attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Lines of different connections may overtake each other by a little.
	i := len(l.attempts)
	for i > 0 && l.attempts[i-1].End > from.Add(-2*time.Second) {
		i--
	}
	var out []Attempt
	for _, a := range l.attempts[i:] {
		if a.End > from && a.End <= to {
			out = append(out, a)
		}
	}
	return out
}

// Err returns why the client cannot be believed, or nil.
func (l *Load) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad == nil && !l.process.Alive() {
		return fmt.Errorf("the client ended: %v", l.process.Err())
	}
	return l.bad
}

// Close ends the client; its record stays readable.
func (l *Load) Close() { _ = l.process.Kill() }
