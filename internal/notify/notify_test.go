package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func event(vip string, s State) Event {
	return Event{Type: "vip", VIP: vip, State: s, Reason: "node_dead", From: "edge-1", To: "edge-2", Term: 7, Node: "edge-2", Time: time.Unix(0, 0).UTC()}
}

// start runs a Notifier until the test ends.
func start(t *testing.T, w Where) *Notifier {
	t.Helper()
	n := New(slog.New(slog.DiscardHandler))
	n.Set(w)
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	t.Cleanup(func() { end(); <-done })
	return n
}

func TestAWebhookThatFailsTwiceIsToldInOrder(t *testing.T) {
	var asked atomic.Int32
	got := make(chan Event, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var e Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("body: %v, %v", err, r.Header)
		}
		got <- e
	}))
	defer server.Close()
	n := start(t, Where{Webhook: server.URL})
	n.Tell(event("public", Holder))
	n.Tell(event("public", Standby))
	for _, want := range []State{Holder, Standby} {
		if e := <-got; e != event("public", want) {
			t.Errorf("told %+v, want %v", e, want)
		}
	}
	// The count of the last comes a moment after its answer.
	for n.Counts()[Outcome{"webhook", "ok"}] < 2 {
		time.Sleep(time.Millisecond)
	}
	if c := n.Counts(); c[Outcome{"webhook", "failed"}] != 2 || c[Outcome{"webhook", "gave_up"}] != 0 {
		t.Errorf("counts %v", c)
	}
}

func TestATransitionIsToldOnce(t *testing.T) {
	n := New(slog.New(slog.DiscardHandler))
	n.Set(Where{Webhook: "http://localhost"})
	for _, s := range []State{Holder, Holder, Standby, Standby, Holder} {
		n.Tell(event("public", s))
	}
	n.Tell(event("other", Holder))
	var got []string
	for e, _, ok := n.next(n.lines[1]); ok; e, _, ok = n.next(n.lines[1]) {
		got = append(got, e.VIP+" "+string(e.State))
	}
	if want := "public holder, public standby, public holder, other holder"; strings.Join(got, ", ") != want {
		t.Errorf("queue %v, want %s", got, want)
	}
}

func TestTheQueueIsBoundedAndKeepsTheNewest(t *testing.T) {
	n := New(slog.New(slog.DiscardHandler))
	n.Set(Where{Command: "/nowhere"})
	for i := range maxQueue + 7 {
		n.Tell(event(fmt.Sprint(i), Holder))
	}
	e, _, _ := n.next(n.lines[0])
	if got := n.Counts()[Outcome{"command", "dropped"}]; got != 7 || e.VIP != "7" {
		t.Errorf("%d dropped, the oldest is %s; want 7 and 7", got, e.VIP)
	}
}

// In virtual time: what nobody takes is given up after a few minutes, and the next follows.
func TestWhatNobodyTakesIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(slog.New(slog.DiscardHandler))
		var tried []string
		n.lines[1].tell = func(_ context.Context, _ string, e Event, _ []byte) error {
			tried = append(tried, e.VIP)
			if e.VIP == "a" {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		n.Set(Where{Webhook: "http://localhost"})
		n.Tell(event("a", Holder))
		n.Tell(event("b", Holder))
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); n.Run(ctx) }()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if len(tried) != attempts+1 || tried[attempts] != "b" {
			t.Errorf("tried %v", tried)
		}
		if c := n.Counts(); c[Outcome{"webhook", "gave_up"}] != 1 || c[Outcome{"webhook", "failed"}] != attempts || c[Outcome{"webhook", "ok"}] != 1 {
			t.Errorf("counts %v", c)
		}
		end()
		<-done
	})
}

// A node that ends has just told that it hands its addresses over.
func TestWhatIsBeingToldAtTheEndIsToldToItsEnd(t *testing.T) {
	for _, c := range []struct {
		takes      time.Duration // of each
		ok, gaveUp uint64        // of three events
	}{
		{time.Second / 2, 3, 0},
		{3 * time.Second / 2, 1, 2},
		{time.Hour, 0, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := New(slog.New(slog.DiscardHandler))
			n.lines[0].tell = func(ctx context.Context, _ string, _ Event, _ []byte) error {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(c.takes):
					return nil
				}
			}
			n.Set(Where{Command: "/told"})
			ctx, end := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); n.Run(ctx) }()
			for _, vip := range []string{"a", "b", "c"} {
				n.Tell(event(vip, Standby))
			}
			synctest.Wait()
			began := time.Now()
			end()
			<-done
			if d := time.Since(began); d > lastTime {
				t.Errorf("the end takes %v, want %v at the most", d, lastTime)
			}
			if got := n.Counts(); got[Outcome{"command", "ok"}] != c.ok || got[Outcome{"command", "gave_up"}] != c.gaveUp {
				t.Errorf("each takes %v: %v, want %d told and %d given up", c.takes, got, c.ok, c.gaveUp)
			}
		})
	}
}

// script writes an executable and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "notify")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestACommandIsToldInEveryWay(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	e := event("public", Holder)
	err := run(t.Context(), script(t, `{ echo "$@"; echo "$PROXYD_VIP $PROXYD_STATE $PROXYD_REASON $PROXYD_FROM $PROXYD_TO $PROXYD_TERM"; cat; } > `+out+"\n"), e, []byte(`{"vip":"public"}`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if want := "vip public holder node_dead\npublic holder node_dead edge-1 edge-2 7\n{\"vip\":\"public\"}"; string(text) != want {
		t.Errorf("told\n%s\nwant\n%s", text, want)
	}
}

func TestACommandThatFailsSaysWhy(t *testing.T) {
	err := run(t.Context(), script(t, "echo no such pager >&2; exit 3\n"), event("public", Holder), nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 3: no such pager") {
		t.Errorf("run = %v", err)
	}
}

// What a command started is killed with it, so that a hanging one holds up nothing.
func TestACommandThatHangsIsKilledAsAGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := run(ctx, script(t, "sleep 60 &\nwait\n"), event("public", Holder), nil)
	if err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("run = %v", err)
	}
	if d := time.Since(began); d > 900*time.Millisecond {
		t.Errorf("it took %v: what it had started went on", d)
	}
}

func TestAWebhooksURLIsInNoError(t *testing.T) {
	err := post(t.Context(), "http://127.0.0.1:1/secret-token", Event{}, nil)
	if err == nil || strings.Contains(err.Error(), "secret-token") {
		t.Errorf("post = %v", err)
	}
}
