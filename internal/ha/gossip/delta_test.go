package gossip

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
	"proxyd/internal/ha/wire/wiretest"
)

func TestNewsArriveAtOnce(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int
		limit time.Duration
	}{
		{"a small piece", 50, 10 * time.Millisecond},
		{"a large piece", 1 << 20, 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLAN()
				sb := &shared{}
				a, stopA := join(t, l, pair[0], Config{State: &shared{}})
				b, stopB := join(t, l, pair[1], Config{State: sb})
				defer stopB()
				defer stopA()
				sees(t, a, 2, 5*time.Second)
				sees(t, b, 2, 5*time.Second)
				news := strings.Repeat("x", c.bytes)
				a.Tell("drain", written(news))
				time.Sleep(c.limit)
				if got := string(sb.Encode(1)); got != news {
					t.Errorf("after %v b knows %d bytes of %d", c.limit, len(got), len(news))
				}
			})
		})
	}
}

func TestNewsThatAreLostAreToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		sb := &shared{}
		a, stopA := join(t, l, pair[0], Config{State: &shared{}})
		b, stopB := join(t, l, pair[1], Config{State: sb})
		defer stopB()
		defer stopA()
		sees(t, a, 2, 5*time.Second)
		sees(t, b, 2, 5*time.Second)
		l.mu.Lock()
		l.loss = 1
		l.mu.Unlock()
		a.Tell("drain", written("drain web"))
		l.mu.Lock()
		l.loss = 0
		l.mu.Unlock()
		time.Sleep(500 * time.Millisecond)
		if got := string(sb.Encode(1)); got != "drain web" {
			t.Errorf("b knows %q", got)
		}
	})
}

func TestAskIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		a, stopA := join(t, l, pair[0], Config{})
		_, stopB := join(t, l, pair[1], Config{Answer: func(from election.ID, q []byte) []byte {
			return append([]byte(string(from)+" said "), bytes.ToUpper(q)...)
		}})
		defer stopB()
		defer stopA()
		sees(t, a, 2, 5*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		got, err := a.Ask(ctx, pair[1], []byte("check this"))
		if want := string(pair[0]) + " said CHECK THIS"; err != nil || string(got) != want {
			t.Errorf("Ask = %q, %v; want %q", got, err, want)
		}
		if _, err := a.Ask(ctx, "10.0.0.9:7946", nil); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("Ask of nobody = %v, want ErrNoAnswer", err)
		}
	})
}

func TestRecordedQuestionIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		asked := 0
		a, stopA := join(t, l, pair[0], Config{})
		b, stopB := join(t, l, pair[1], Config{Answer: func(election.ID, []byte) []byte { asked++; return nil }})
		defer stopB()
		defer stopA()
		sees(t, a, 2, 5*time.Second)
		pass, err := a.exchange(t.Context(), pair[1], message{kind: wantPass})
		if err != nil {
			t.Fatal(err)
		}
		q := message{version: 1, kind: wantReply, pass: pass.pass, from: pair[0], body: []byte("activate")}.append(nil)
		for range 3 {
			b.asked(bytes.Clone(q))
			time.Sleep(time.Second)
		}
		if asked != 1 {
			t.Errorf("asked %d times, want once", asked)
		}
		pass, err = a.exchange(t.Context(), pair[1], message{kind: wantPass})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(passTime + time.Second)
		b.asked(message{version: 1, kind: wantReply, pass: pass.pass, from: pair[0]}.append(nil))
		time.Sleep(time.Second)
		if asked != 1 {
			t.Error("a pass counts after its time")
		}
	})
}

func FuzzUserMessage(f *testing.F) {
	m := message{version: 1, kind: wantReply, id: token{1}, from: pair[0], body: []byte("check")}
	f.Add(m.append([]byte{questionMark}))
	f.Add(m.append([]byte{answerMark}))
	f.Add([]byte{deltaMark, 1, 2, 3})
	f.Add([]byte{questionMark})
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &Gossip{Config: Config{Wire: wire.Range{}.Or()}, asking: asking{waiting: map[token]chan message{}, passes: map[token]time.Time{}}, list: &memberlist.Memberlist{}}
		if len(b) > 0 && b[0] == questionMark {
			m, err := parseMessage(b[1:], wire.Range{}.Or())
			if err != nil {
				return
			}
			if again := m.append([]byte{questionMark}); !bytes.Equal(again, b) {
				t.Errorf("%x parsed and appended is %x", b, again)
			}
			return
		}
		g.receive(b)
	})
}

// written are news of which a version of the wire makes no difference.
func written(news string) func(uint8) []byte { return func(uint8) []byte { return []byte(news) } }

func TestQuestionKeepsItsFormat(t *testing.T) {
	m := message{version: 1, kind: wantReply, id: token{1}, pass: token{2}, from: pair[0], body: []byte("check")}
	for i, b := range wiretest.Golden(t, "v1/question.hex", m.append([]byte{questionMark})) {
		got, err := parseMessage(b[1:], wire.Range{Oldest: 1, Newest: 1})
		if err != nil || b[0] != questionMark || got.kind != m.kind || got.id != m.id || got.pass != m.pass || got.from != m.from || string(got.body) != "check" {
			t.Errorf("number %d is %+v, %v", i+1, got, err)
		}
	}
}
