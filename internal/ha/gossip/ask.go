package gossip

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

// A node asks another something and waits for the answer, each by a stream of memberlist,
// which is sealed with the key of the cluster. What was recorded on the wire can be sent
// again by anybody, so a question counts only with a pass that the other side gave out for
// it: the asker first asks for one. A message is
//
//	version 1, of the wire | kind 1 | id 16 | pass 16 | 1+n bytes: the sender | body
//
// where id is random and of the asker, who believes an answer by it.
const (
	askHead = 1 + 1 + 16 + 16 + 1

	wantPass  = 0 // of a question: a pass
	wantReply = 1 // of a question: what Answer says to the body
	refusal   = 2 // of an answer: the body says why not

	// MaxAsk bounds the body of a question or an answer.
	MaxAsk = 18 << 20
	// maxPasses bounds how many questions are announced and not asked.
	maxPasses = 64
	// passTime is how long a pass is good for.
	passTime = 10 * time.Second
	// maxAnswers is how many questions are answered at once; one more is refused.
	maxAnswers = 16
)

// ErrNoAnswer is wrapped by what Ask returns when a node cannot be reached or does not
// answer in time. It may have done what it was asked for.
var ErrNoAnswer = errors.New("no answer")

type token [16]byte

// asking is what Ask and its other side keep.
type asking struct {
	mu      sync.Mutex
	waiting map[token]chan message // by id: who waits for an answer
	passes  map[token]time.Time    // given out, with their ends
	busy    int                    // questions that are being answered
}

// A message is one question or answer.
type message struct {
	version  uint8
	kind     byte
	id, pass token
	from     election.ID
	body     []byte
}

func (m message) append(b []byte) []byte {
	b = append(b, m.version, m.kind)
	b = append(b, m.id[:]...)
	b = append(b, m.pass[:]...)
	b = append(b, byte(len(m.from)))
	b = append(b, m.from...)
	return append(b, m.body...)
}

// parseMessage reads what append wrote. The body is a part of b.
func parseMessage(b []byte, versions wire.Range) (message, error) {
	if len(b) == 0 || !versions.Knows(b[0]) {
		return message{}, errors.New("a question of another version")
	}
	if len(b) < askHead || len(b) < askHead+int(b[askHead-1]) || len(b) > askHead+255+MaxAsk {
		return message{}, errors.New("a question cut short or too long")
	}
	m := message{version: b[0], kind: b[1], id: token(b[2:18]), pass: token(b[18:34])}
	rest := b[askHead:]
	n := int(b[askHead-1])
	m.from, m.body = election.ID(rest[:n]), rest[n:]
	if m.kind > refusal {
		return message{}, fmt.Errorf("a question of the unknown kind %d", m.kind)
	}
	return m, nil
}

// Ask gives body to a node and returns what its Answer says. The node need not be one of
// the voters known here; it must have the secret of the cluster.
func (g *Gossip) Ask(ctx context.Context, to election.ID, body []byte) ([]byte, error) {
	if len(body) > MaxAsk {
		return nil, fmt.Errorf("ask %s: %d bytes are more than the %d that may be sent", to, len(body), MaxAsk)
	}
	pass, err := g.exchange(ctx, to, message{kind: wantPass})
	if err != nil {
		return nil, err
	}
	answer, err := g.exchange(ctx, to, message{kind: wantReply, pass: pass.pass, body: body})
	return answer.body, err
}

// exchange sends one question and waits for its answer.
func (g *Gossip) exchange(ctx context.Context, to election.ID, m message) (message, error) {
	if _, err := rand.Read(m.id[:]); err != nil {
		return message{}, err
	}
	m.from, m.version = g.Self, g.to(to)
	came := make(chan message, 1)
	g.asking.mu.Lock()
	g.asking.waiting[m.id] = came
	g.asking.mu.Unlock()
	defer func() {
		g.asking.mu.Lock()
		delete(g.asking.waiting, m.id)
		g.asking.mu.Unlock()
	}()
	if err := g.sendStream(to, m.append([]byte{questionMark})); err != nil {
		return message{}, fmt.Errorf("ask %s: %w: %w", to, ErrNoAnswer, err)
	}
	select {
	case answer := <-came:
		if answer.kind == refusal {
			return message{}, fmt.Errorf("ask %s: %s", to, answer.body)
		}
		return answer, nil
	case <-ctx.Done():
		return message{}, fmt.Errorf("ask %s: %w: %w", to, ErrNoAnswer, ctx.Err())
	}
}

func (g *Gossip) sendStream(to election.ID, msg []byte) error {
	a, err := nodeAt(to)
	if err != nil {
		return err
	}
	return g.list.SendReliable(a, msg)
}

// asked takes in a question. The answer is made beside the loop of memberlist.
func (g *Gossip) asked(b []byte) {
	q, err := parseMessage(b, g.Wire)
	if err != nil || q.kind == refusal {
		g.refused.Add(1)
		return
	}
	answer := message{version: q.version, id: q.id, kind: q.kind, from: g.Self}
	now := time.Now()
	g.asking.mu.Lock()
	switch end, known := g.asking.passes[q.pass]; {
	case g.Answer == nil:
		answer.kind, answer.body = refusal, []byte("this node answers no questions")
	case q.kind == wantPass:
		for p, end := range g.asking.passes {
			if now.After(end) {
				delete(g.asking.passes, p)
			}
		}
		if _, err := rand.Read(answer.pass[:]); err != nil || len(g.asking.passes) >= maxPasses {
			answer.kind, answer.body = refusal, []byte("too many questions at once")
		} else {
			g.asking.passes[answer.pass] = now.Add(passTime)
		}
	case !known || now.After(end):
		g.asking.mu.Unlock()
		g.refused.Add(1) // a recording, or long on its way
		return
	case g.asking.busy >= maxAnswers:
		delete(g.asking.passes, q.pass)
		answer.kind, answer.body = refusal, []byte("too many questions at once")
	default:
		delete(g.asking.passes, q.pass)
		g.asking.busy++
		g.asking.mu.Unlock()
		go func() { // ends when Answer returns, which has a bound of its own
			answer.body = g.Answer(q.from, q.body)
			g.asking.mu.Lock()
			g.asking.busy--
			g.asking.mu.Unlock()
			g.send(q.from, answer)
		}()
		return
	}
	g.asking.mu.Unlock()
	go g.send(q.from, answer) // ends within memberlist's time-out
}

func (g *Gossip) send(to election.ID, m message) {
	if err := g.sendStream(to, m.append([]byte{answerMark})); err != nil {
		g.Log.Debug("an answer was not delivered", "node", to, "error", err)
	}
}

// answered gives an answer to who waits for it.
func (g *Gossip) answered(b []byte) {
	m, err := parseMessage(b, g.Wire)
	if err != nil {
		g.refused.Add(1)
		return
	}
	g.asking.mu.Lock()
	defer g.asking.mu.Unlock()
	if came := g.asking.waiting[m.id]; came != nil {
		delete(g.asking.waiting, m.id)
		came <- m
	}
}

// nodeAt is what memberlist must know to reach an address.
func nodeAt(id election.ID) (*memberlist.Node, error) {
	a, err := parseID(id)
	if err != nil {
		return nil, err
	}
	return &memberlist.Node{Name: string(id), Addr: a.Addr().AsSlice(), Port: a.Port()}, nil
}
