// Package notify tells a program and a web address what happens on this node, in order
// and with retries. Nobody waits for them.
package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// An Event is one transition of this node. Keys are stable.
type Event struct {
	Type    string    `json:"type"` // "vip"
	VIP     string    `json:"vip"`
	Address string    `json:"address"`
	State   State     `json:"state"` // what this node is to the VIP from now on
	Reason  string    `json:"reason"`
	Text    string    `json:"text,omitempty"` // what the operator gave as the reason, or what was wrong
	From    string    `json:"from"`           // who held it before; "" nobody, or not known
	To      string    `json:"to"`             // who holds it now; "" nobody, or not known
	Term    uint64    `json:"term"`
	Node    string    `json:"node"` // who tells it
	Cluster string    `json:"cluster"`
	Time    time.Time `json:"time"`
}

// State is what a node is to a VIP.
type State string

const (
	Holder  State = "holder"
	Standby State = "standby"
	Fault   State = "fault" // it was to hold it, and cannot
)

// Where says whom to tell; "" is nobody.
type Where struct {
	Command string // absolute path of a program
	Webhook string // http or https URL
}

const (
	// maxQueue is how many events wait for each; of more the oldest are dropped.
	maxQueue = 256
	// attempts is how often an event is tried; the pauses between begin with firstPause
	// and double up to maxPause.
	attempts   = 8
	firstPause = 500 * time.Millisecond
	maxPause   = 30 * time.Second
	// patience is how long one attempt may take.
	patience = 10 * time.Second
)

// Outcome says what became of an attempt or of an event.
type Outcome struct{ Kind, Result string }

// Outcomes are all that are counted. "failed" counts attempts; the others count events:
// "ok" was told, "gave_up" never was, "dropped" did not even wait.
func Outcomes() []Outcome {
	var out []Outcome
	for _, kind := range []string{"command", "webhook"} {
		for _, result := range []string{"ok", "failed", "gave_up", "dropped"} {
			out = append(out, Outcome{kind, result})
		}
	}
	return out
}

// A Notifier tells events. It is safe for concurrent use.
type Notifier struct {
	log   *slog.Logger
	lines []*line

	mu     sync.Mutex
	counts map[Outcome]uint64
	states map[string]State // by VIP, as last told
}

// A line is the way to one receiver: it keeps the order, whatever the other does.
type line struct {
	kind string
	tell func(ctx context.Context, to string, e Event, body []byte) error
	wake chan struct{} // has one value when events wait

	// n.mu guards what follows.
	to    string // whom; "" nobody
	queue []Event
}

// New returns a Notifier that tells nobody yet.
func New(log *slog.Logger) *Notifier {
	n := &Notifier{log: log, counts: map[Outcome]uint64{}, states: map[string]State{}}
	n.lines = []*line{
		{kind: "command", tell: run, wake: make(chan struct{}, 1)},
		{kind: "webhook", tell: post, wake: make(chan struct{}, 1)},
	}
	return n
}

// Set says whom to tell from now on. What waits for nobody any more is dropped.
func (n *Notifier) Set(w Where) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, to := range []string{w.Command, w.Webhook} {
		l := n.lines[i]
		if l.to = to; to == "" {
			n.counts[Outcome{l.kind, "dropped"}] += uint64(len(l.queue))
			l.queue = nil
		}
	}
}

// Tell puts an event in the queues, if it says something new of its VIP. It never waits.
func (n *Notifier) Tell(e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.states[e.VIP] == e.State {
		return
	}
	n.states[e.VIP] = e.State
	for _, l := range n.lines {
		if l.to == "" {
			continue
		}
		if len(l.queue) == maxQueue {
			l.queue = slices.Delete(l.queue, 0, 1)
			n.counts[Outcome{l.kind, "dropped"}]++
		}
		l.queue = append(l.queue, e)
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Counts returns how often there was which outcome.
func (n *Notifier) Counts() map[Outcome]uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[Outcome]uint64{}
	for _, o := range Outcomes() {
		out[o] = n.counts[o]
	}
	return out
}

// Run tells what is in the queues until ctx ends. What is being told then is told to its
// end, and what still waits is told once, if it goes quickly: a node that ends has just
// handed its addresses over.
func (n *Notifier) Run(ctx context.Context) {
	var both sync.WaitGroup
	for _, l := range n.lines {
		both.Go(func() { n.follow(ctx, l) })
	}
	both.Wait()
}

// lastTime is how long the events that are not told at the end may take together.
const lastTime = 2 * time.Second

func (n *Notifier) follow(ctx context.Context, l *line) {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastTime, cancel) })()
	for {
		e, to, ok := n.next(l)
		if ok {
			n.deliver(ctx, last, l, to, e)
			if ctx.Err() == nil {
				continue
			}
		}
		select {
		case <-ctx.Done():
			for e, to, ok := n.next(l); ok; e, to, ok = n.next(l) {
				if err := n.attempt(last, l, to, e); err != nil {
					n.giveUp(l, e, 1, err)
				}
			}
			return
		case <-l.wake:
		}
	}
}

// next takes the oldest event that waits.
func (n *Notifier) next(l *line) (e Event, to string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(l.queue) == 0 {
		return Event{}, "", false
	}
	e = l.queue[0]
	l.queue = slices.Delete(l.queue, 0, 1)
	return e, l.to, true
}

// deliver tries until it is told, or has been tried often enough, or ctx ends: then it tries
// no more, and the attempt under way may go on until last ends.
func (n *Notifier) deliver(ctx, last context.Context, l *line, to string, e Event) {
	pause := firstPause
	for i := 1; ; i++ {
		err := n.attempt(last, l, to, e)
		if err == nil {
			return
		}
		if i == attempts || ctx.Err() != nil {
			n.giveUp(l, e, i, err)
			return
		}
		n.log.Warn("notify: trying again", "kind", l.kind, "vip", e.VIP, "state", e.State, "in", pause, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

func (n *Notifier) giveUp(l *line, e Event, attempts int, err error) {
	n.count(l, "gave_up")
	n.log.Error("notify: given up", "kind", l.kind, "vip", e.VIP, "state", e.State, "attempts", attempts, "error", err)
}

func (n *Notifier) attempt(ctx context.Context, l *line, to string, e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	try, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.tell(try, to, e, append(body, '\n')); err != nil {
		n.count(l, "failed")
		return err
	}
	n.count(l, "ok")
	return nil
}

func (n *Notifier) count(l *line, result string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[Outcome{l.kind, result}]++
}
