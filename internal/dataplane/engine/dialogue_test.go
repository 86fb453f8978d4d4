package engine

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// settings are what a dialogue may ask for in its first line, "set NAME NAME".
var settings = map[string]func(*stage, *Config){
	"small_body":   func(s *stage, _ *Config) { s.route.BodyBytes = 10 },
	"no_websocket": func(s *stage, _ *Config) { s.route.WebSocket = false },
	"short_head":   func(s *stage, _ *Config) { s.listener.Limits.HeaderTime = 20 * time.Millisecond },
	"short_idle":   func(s *stage, _ *Config) { s.listener.Limits.Idle = 20 * time.Millisecond },
	"short_try":    func(s *stage, _ *Config) { s.route.Timeout.PerTry = shortPause / 2 },
	"short_read":   func(s *stage, _ *Config) { s.route.Timeout.Read = 20 * time.Millisecond },
	"short_total":  func(s *stage, _ *Config) { s.route.Timeout.Total = shortPause },
	"short_tunnel": func(s *stage, _ *Config) { s.route.Timeout.Tunnel = 20 * time.Millisecond },
	"short_kept":   func(s *stage, _ *Config) { s.route.Timeout.Idle = 20 * time.Millisecond },
	"rare_sweep":   func(_ *stage, c *Config) { c.Sweep = time.Hour },
	"long_grace":   func(_ *stage, c *Config) { c.IdleGrace = patience },
	"small_head":   func(s *stage, _ *Config) { s.listener.Limits.HeaderBytes = 512; s.listener.Limits.URIBytes = 100 },
	"lowest_rate": func(s *stage, _ *Config) {
		s.listener.Limits.MinRate, s.listener.Limits.RateWindow = 100000, 20*time.Millisecond
	},
	"heavy":          func(s *stage, _ *Config) { s.route.Heavy = true },
	"shout":          func(s *stage, _ *Config) { s.setFilter(testFilter{each: bytes.ToUpper}) },
	"double":         func(s *stage, _ *Config) { s.setFilter(testFilter{each: doubled, grows: true}) },
	"liar":           func(s *stage, _ *Config) { s.setFilter(testFilter{each: doubled}) },
	"holds_back":     func(s *stage, _ *Config) { s.setFilter(testFilter{each: doubled, grows: true, holds: true}) },
	"fails":          func(s *stage, _ *Config) { s.setFilter(testFilter{each: doubled, grows: true, fails: true}) },
	"buffer":         func(s *stage, _ *Config) { s.route.Heavy, s.route.Buffer = true, 20000 },
	"tiny_room":      func(s *stage, _ *Config) { s.listener.Room.SetLimit(100) },
	"trailers":       func(s *stage, _ *Config) { s.route.Heavy, s.route.Trailers = true, [][]byte{[]byte("x-sum")} },
	"trailers_light": func(s *stage, _ *Config) { s.route.Trailers = [][]byte{[]byte("x-sum")} },
	"sized":          func(s *stage, _ *Config) { s.route.Heavy, s.route.Sized = true, true; s.route.BodyBytes = 20000 },
	"front":          func(s *stage, _ *Config) { s.setFront(true) },
	"stranger":       func(s *stage, _ *Config) { s.setFront(false) },
	"proxied":        func(s *stage, _ *Config) { s.route.Heavy, s.route.Proxied, s.depths = true, 1, false }, // the header goes before TLS
	"says_draining":  func(_ *stage, c *Config) { c.Draining = func() bool { return true } },
}

// dialogues plays every file of testdata/dialogues on engines that newEngine makes. A
// file holds dialogues, each under a line "-- name --".
func dialogues(t *testing.T, newEngine func(Config) Engine, always ...func(*stage, *Config)) {
	files, err := filepath.Glob("testdata/dialogues/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		group := strings.TrimSuffix(filepath.Base(file), ".txt")
		for _, part := range strings.Split("\n"+string(data), "\n-- ")[1:] {
			name, script, ok := strings.Cut(part, " --\n")
			if !ok {
				t.Fatalf("%s: no end of the name of %.40q", file, part)
			}
			t.Run(group+"/"+name, func(t *testing.T) {
				set := always[:len(always):len(always)]
				if first, rest, _ := strings.Cut(script, "\n"); strings.HasPrefix(first, "set ") {
					script = rest
					for _, word := range strings.Fields(first)[1:] {
						f := settings[word]
						if f == nil {
							t.Fatalf("no setting %q", word)
						}
						set = append(set, f)
					}
				}
				s := newStage(t, newEngine, func(s *stage, c *Config) {
					for _, f := range set {
						f(s, c)
					}
				})
				s.play(script)
			})
		}
	}
}

func TestDialoguesLoop(t *testing.T) {
	dialogues(t, func(c Config) Engine { return NewLoop(c) }, func(s *stage, _ *Config) { s.waited = true })
}

// Even what happens by itself goes the way of what happens at the same time as other things.
func TestDialoguesLoopInBatches(t *testing.T) {
	dialogues(t, func(c Config) Engine { c.Batch = 1; return NewLoop(c) }, func(s *stage, _ *Config) { s.waited = true })
}

// Under a quota whoever begins something waits for its turn behind what is under way.
func TestDialoguesLoopInTurns(t *testing.T) {
	dialogues(t, func(c Config) Engine { return newPaced(c, time.Second) }, func(s *stage, _ *Config) { s.waited = true })
}

// newPaced is an engine of one loop under a quota of so much time in each second. With a second
// it has turns and never rests, with little it rests after each.
func newPaced(c Config, quota time.Duration) *Loop {
	c.Loops = 1
	e := prepareLoop(c)
	e.patient = true // however few processors there are
	e.make()
	e.Pace(quota, time.Second)
	return e
}

func TestDialoguesLoopWithAnotherAccepting(t *testing.T) {
	dialogues(t, func(c Config) Engine { return NewLoop(c) })
}

func TestDialoguesGoroutine(t *testing.T) {
	dialogues(t, func(c Config) Engine { return New(c) })
}
