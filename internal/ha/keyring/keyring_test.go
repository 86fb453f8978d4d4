package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const first = "what stands in the file of all"

// A lab is three nodes, of which a question or an answer may be lost, and each node may
// start anew at any moment.
type lab struct {
	t     *testing.T
	now   time.Time
	dirs  map[string]string
	nodes map[string]*Keeper
	force map[string][]string // what is in force, by node
	asked int
	// fails, if set, says of the question with a number whether it is lost before or after
	// it was done.
	fails func(n int, node string) (before, after bool)
}

var voters = []string{"a", "b", "c"}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), dirs: map[string]string{}, nodes: map[string]*Keeper{}, force: map[string][]string{}}
	for _, v := range voters {
		l.dirs[v] = t.TempDir()
		l.start(v, first)
	}
	return l
}

// start starts a node, anew if it ran.
func (l *lab) start(node, secret string) {
	l.t.Helper()
	k, err := Open(Config{Dir: l.dirs[node], Secret: secret, Voters: voters, Now: func() time.Time { return l.now }, Log: slog.New(slog.DiscardHandler),
		Force: func(s []string) error { l.force[node] = s; return nil }})
	if err != nil {
		l.t.Fatal(err)
	}
	l.nodes[node], l.force[node] = k, k.Secrets()
}

func (l *lab) rotation(at string) *Rotation {
	nodes := append([]string{at}, slices.DeleteFunc(slices.Clone(voters), func(v string) bool { return v == at })...)
	return &Rotation{Nodes: nodes, By: "ann on " + at, Now: func() time.Time { return l.now }, Ask: func(_ context.Context, node string, q Question) (Answer, error) {
		l.asked++
		before, after := false, false
		if l.fails != nil {
			before, after = l.fails(l.asked, node)
		}
		if before {
			return Answer{}, errors.New("no answer")
		}
		a, err := l.nodes[node].Answer(q)
		if after {
			return Answer{}, errors.New("no answer")
		}
		l.whole(fmt.Sprintf("after question %d, %s of %s", l.asked, q.Do, node))
		return a, err
	}}
}

// whole is what holds at every moment: each node believes what any other seals with.
func (l *lab) whole(when string) {
	l.t.Helper()
	for _, from := range voters {
		for _, to := range voters {
			if !slices.Contains(l.force[to], l.force[from][0]) {
				l.t.Fatalf("%s: %s seals with what %s does not believe", when, from, to)
			}
		}
	}
}

// settled is that all nodes have one key and the same.
func (l *lab) settled(not string) {
	l.t.Helper()
	for _, v := range voters {
		if len(l.force[v]) != 1 || l.force[v][0] != l.force["a"][0] || l.force[v][0] == not {
			l.t.Fatalf("%s has %d keys, the first is %s; a has %s", v, len(l.force[v]), Mark(l.force[v][0]), Mark(l.force["a"][0]))
		}
	}
}

func TestRotationGivesEveryNodeOneNewKey(t *testing.T) {
	l := newLab(t)
	for n := range 3 {
		was := l.force["a"][0]
		r, err := l.rotation(voters[n]).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Key.Number != uint64(n+1) || r.Resumed || !slices.Equal(r.Before, []string{Mark(was)}) || r.Key.Mark != Mark(l.force["a"][0]) || r.Key.Since != l.now {
			t.Errorf("rotation %d: %+v", n, r)
		}
		l.settled(was)
	}
}

// Wherever a rotation breaks off, by a question or an answer that is lost and by nodes that
// start anew, the nodes go on hearing each other, and another rotation, asked for anywhere,
// ends it.
func TestRotationThatBreaksOffLosesNobodyAndGoesOn(t *testing.T) {
	whole := newLab(t)
	if _, err := whole.rotation("a").Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= whole.asked; at++ {
		for _, after := range []bool{false, true} {
			for _, anew := range []bool{false, true} {
				next := voters[at%len(voters)]
				l := newLab(t)
				l.fails = func(n int, _ string) (bool, bool) { return n >= at && !after, n >= at && after }
				_, err := l.rotation("a").Run(t.Context())
				l.fails = nil
				l.whole("broken off")
				began := slices.ContainsFunc(voters, func(v string) bool { return len(l.nodes[v].Secrets()) > 1 || l.force[v][0] != first })
				if began && err != nil && !errors.Is(err, ErrUnfinished) {
					t.Fatalf("cut at %d: something has changed, and the error is %v", at, err)
				}
				if anew {
					for _, v := range voters {
						l.start(v, first)
						l.whole("started anew")
					}
				}
				l.now = l.now.Add(lockTime + time.Second)
				if _, err := l.rotation(next).Run(t.Context()); err != nil {
					t.Fatalf("cut at %d, on %s after that: %v", at, next, err)
				}
				l.settled(first)
			}
		}
	}
}

func TestOneRotationAtATime(t *testing.T) {
	l := newLab(t)
	if _, err := l.nodes["c"].Answer(Question{Do: Lock, ID: "other", By: "bob on c"}); err != nil {
		t.Fatal(err)
	}
	_, err := l.rotation("a").Run(t.Context())
	if err == nil || errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), "bob on c") {
		t.Fatalf("err = %v", err)
	}
	l.settled("")
	// What the other one has to say after its time is refused.
	l.now = l.now.Add(lockTime)
	k, err := NewKey(1, l.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.nodes["c"].Answer(Question{Do: Accept, ID: "other", Key: &k}); err == nil {
		t.Error("a rotation goes on after its lock has ended")
	}
	if _, err := l.rotation("a").Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestOtherVotersAreRefused(t *testing.T) {
	l := newLab(t)
	l.nodes["b"].Voters = append(slices.Clone(voters), "d")
	if _, err := l.rotation("a").Run(t.Context()); err == nil || !strings.Contains(err.Error(), "b has other voters") {
		t.Errorf("err = %v", err)
	}
	l.settled("")
}

func TestStepsOutOfOrderAreRefused(t *testing.T) {
	l := newLab(t)
	k, _ := NewKey(1, l.now)
	a := l.nodes["a"]
	for _, q := range []Question{
		{Do: Accept, ID: "x", Key: &k}, // without the lock
		{Do: Lock},
		{Do: Lock, ID: "x"},
		{Do: Use, ID: "x", Mark: k.Mark()},
		{Do: Accept, ID: "x"},
		{Do: Accept, ID: "x", Key: &Key{Number: 1}},
		{Do: Accept, ID: "x", Key: &Key{Number: 1, Secret: strings.Repeat("x", maxSecret+1)}},
		{Do: Accept, ID: "x", Key: &k},
		{Do: Keep, ID: "x", Mark: k.Mark()}, // before it seals
		{Do: Give, ID: "x", Mark: "000000000000"},
		{Do: "burn", ID: "x"},
	} {
		_, err := a.Answer(q)
		if want := q.Do == Lock && q.ID != "" || q.Do == Accept && q.Key == &k && a.id != ""; (err == nil) != want {
			t.Errorf("%s: %v", q.Do, err)
		}
	}
}

func TestRingIsReadableByItsOwnerAlone(t *testing.T) {
	l := newLab(t)
	if _, err := l.rotation("a").Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(l.dirs["b"], File))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestSecretThatTheRingHadDoesNotPutItAside(t *testing.T) {
	l := newLab(t)
	for range 2 {
		if _, err := l.rotation("a").Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	now := l.force["a"][0]
	l.start("a", first) // the file is as it always was
	l.settled(first)
	l.start("a", now) // the present key is in the file
	l.settled(first)
	if !l.nodes["a"].Knows(first) || l.nodes["a"].Knows("what nobody ever had") {
		t.Error("Knows")
	}
	if _, err := l.rotation("b").Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.start("a", now)
	l.settled(now)
}

func TestSecretThatNobodyHadGoesBeforeTheRing(t *testing.T) {
	l := newLab(t)
	if _, err := l.rotation("a").Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	k, err := Open(Config{Dir: l.dirs["a"], Secret: "a secret put there by hand", Now: time.Now, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil || !slices.Equal(k.Secrets(), []string{"a secret put there by hand"}) {
		t.Fatalf("%v, %v", k.Secrets(), err)
	}
	if !strings.Contains(said.String(), "laid aside") {
		t.Errorf("said %q", said.String())
	}
	if strings.Contains(said.String(), "by hand") {
		t.Error("the secret is in the log")
	}
}

func TestDamagedRingIsAnError(t *testing.T) {
	for _, text := range []string{"", "{", "{}", `{"keys":[{"number":1}]}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir, Secret: first}); err == nil || !strings.Contains(err.Error(), "copy the file from another node") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWhatCannotBeKeptIsNotInForce(t *testing.T) {
	l := newLab(t)
	a := l.nodes["a"]
	a.Dir = filepath.Join(l.dirs["a"], "gone")
	if _, err := l.rotation("b").Run(t.Context()); !errors.Is(err, ErrUnfinished) {
		t.Errorf("err = %v", err)
	}
	l.whole("a cannot write")
	if !slices.Equal(l.force["a"], []string{first}) {
		t.Error("a has in force what it does not have on the disk")
	}
}
