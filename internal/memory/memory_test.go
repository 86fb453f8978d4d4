package memory

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type place struct {
	name  string
	depth uint8
}

type kind string

func (kind) MarshalText() ([]byte, error) { panic("a type's own words are not asked for") }

type thing struct {
	mu     sync.Mutex
	seq    atomic.Uint64
	on     bool
	life   time.Duration
	big    uint64
	share  float64
	why    kind
	at     time.Time
	here   place
	places []place
	ring   [3]uint64
	counts map[kind]uint64
	owner  *thing
	tell   func()
	line   chan int
	parts  []*place
	Open   bool
}

func TestAllThatLastsIsRecalled(t *testing.T) {
	a := &thing{on: true, life: time.Minute, big: 1<<64 - 1, share: .25, why: "because", at: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		here: place{"x", 3}, places: []place{{"a", 1}, {"b", 2}}, ring: [3]uint64{1, 2, 3}, counts: map[kind]uint64{"one": 1},
		owner: &thing{}, tell: func() {}, line: make(chan int), parts: []*place{{}}, Open: true}
	a.seq.Store(77)
	a.mu.Lock()
	text, err := Of(a, "share")
	if err != nil {
		t.Fatal(err)
	}
	b := &thing{share: 1, places: []place{{"old", 9}, {}, {}}, counts: map[kind]uint64{"two": 2}}
	if err := Recall(b, text, "life"); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock() // it is not locked
	switch {
	case b.seq.Load() != 77, !b.on, b.life != 0, b.big != 1<<64-1, b.share != 1, b.why != "because", !b.at.Equal(a.at), b.here != a.here,
		len(b.places) != 2, b.places[1] != a.places[1], b.ring != a.ring, len(b.counts) != 1, b.counts["one"] != 1, !b.Open:
		t.Errorf("recalled %+v of %s", b, text)
	case b.owner != nil, b.tell != nil, b.line != nil, b.parts != nil:
		t.Errorf("what belongs to a process was carried over: %+v", b)
	}
}

func TestReleasesUnderstandEachOther(t *testing.T) {
	b := &thing{life: time.Second}
	if err := Recall(b, json.RawMessage(`{"on":true,"later":{"x":1},"here":{"name":"n","zip":5},"places":null}`)); err != nil {
		t.Fatal(err)
	}
	if !b.on || b.life != time.Second || b.here.name != "n" || b.places != nil {
		t.Errorf("recalled %+v", b)
	}
	for _, bad := range []string{`{"on":"yes"}`, `{"here":[]}`, `[]`, `{"big":-1}`, ``} {
		if Recall(&thing{}, json.RawMessage(bad)) == nil {
			t.Errorf("%q was recalled", bad)
		}
	}
	if _, err := Of(thing{}); err == nil {
		t.Error("a value that cannot be set was taken")
	}
}

func FuzzRecall(f *testing.F) {
	f.Add([]byte(`{"on":true,"places":[{"name":"x","depth":300}],"ring":[1,2,3,4],"at":"x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := &thing{}
		if Recall(b, text) == nil {
			if _, err := Of(b); err != nil {
				t.Error(err)
			}
		}
	})
}
