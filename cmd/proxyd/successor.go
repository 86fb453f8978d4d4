package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"proxyd/internal/baton"
)

// A successor is the process that takes this one's place.
type successor struct {
	line  *baton.Line
	hello helloWords
	kill  func() error
	ended chan struct{} // closed when it has ended
	err   error         // how; read after ended
	said  *lastLines    // its log, until it serves
	over  error         // why it was abandoned
	pause time.Duration // in which neither process decided anything
}

// hear waits for one word of it, into body. What it says instead is the error.
func (s *successor) hear(kind string, d time.Duration, body any) (baton.Message, error) {
	m, err := s.line.Receive(d)
	switch {
	case errors.Is(err, io.EOF):
		return m, errGone
	case err != nil:
		return m, fmt.Errorf("it does not say %q: %w", kind, err)
	}
	baton.CloseFiles(m.Files) // it has nothing to give
	switch m.Kind {
	case kind:
		if body != nil {
			err = json.Unmarshal(m.Body, body)
		}
		return m, err
	case sayFailed:
		var w failedWords
		_ = json.Unmarshal(m.Body, &w) // whatever can be read of it is the reason
		return m, fmt.Errorf("it says: %s", w.Error)
	}
	return m, fmt.Errorf("it says %q, want %q", m.Kind, kind)
}

// abandon ends the successor for certain, and returns what is to be said of it.
func (s *successor) abandon(why error) error {
	if s.over != nil {
		return s.over
	}
	// One that ends by itself has a reason, which is worth waiting for.
	if errors.Is(why, errGone) {
		select {
		case <-s.ended:
		case <-time.After(time.Second):
		}
	}
	_ = s.kill() // it may have ended
	<-s.ended
	s.line.Close()
	text := fmt.Sprintf("the new process did not come up: %v", why)
	if errors.Is(why, errGone) && s.err != nil {
		text += " (" + s.err.Error() + ")"
	}
	if last := s.said.text(); last != "" {
		text += "; its last words: " + last
	}
	s.over = errors.New(text)
	return s.over
}

// lastLines passes a log on and remembers the end of it.
type lastLines struct {
	to io.Writer

	mu  sync.Mutex
	end []byte
}

// maxLastLines bounds what is remembered, in bytes: the first lines of a panic, which say
// why, are followed by a page of stacks.
const maxLastLines = 16 << 10

// Write implements io.Writer.
func (l *lastLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	if l.end = append(l.end, b...); len(l.end) > maxLastLines {
		l.end = append(l.end[:0], l.end[len(l.end)-maxLastLines:]...)
	}
	l.mu.Unlock()
	return l.to.Write(b)
}

// text returns the line that says most: that of a panic, or else the last one.
func (l *lastLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(l.end)), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
	}
	return lines[len(lines)-1]
}
