package memory

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

type thing struct {
	big    uint64
	life   time.Duration
	places []string
	counts map[string]uint64
	ring   [3]uint64
	inner  struct{ on bool }
}

func (x *thing) fields() Fields {
	return Fields{"big": &x.big, "life": &x.life, "places": &x.places, "counts": &x.counts, "ring": &x.ring,
		"inner": Fields{"on": &x.inner.on}}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	a := &thing{big: 1<<64 - 1, life: time.Minute, places: []string{"a", "b"}, counts: map[string]uint64{"one": 1}, ring: [3]uint64{1, 2, 3}}
	a.inner.on = true
	text, err := Write(1, a.fields())
	if err != nil {
		t.Fatal(err)
	}
	b := &thing{places: []string{"old", "older", "oldest"}}
	if err := Read(text, 1, b.fields()); err != nil {
		t.Fatal(err)
	}
	if b.big != a.big || b.life != a.life || !slices.Equal(b.places, a.places) || b.counts["one"] != 1 || b.ring != a.ring || !b.inner.on {
		t.Errorf("read %+v of %s", b, text)
	}
}

func TestOtherReleasesHaveOtherFields(t *testing.T) {
	b := &thing{life: time.Hour}
	if err := Read(json.RawMessage(`{"version":1,"fields":{"big":7,"later":{"x":1},"inner":{"on":true,"zip":5}},"more":1}`), 1, b.fields()); err != nil {
		t.Fatal(err)
	}
	if b.big != 7 || b.life != time.Hour || !b.inner.on {
		t.Errorf("read %+v", b)
	}
	for _, bad := range []string{``, `7`, `{}`, `{"version":2,"fields":{}}`, `{"version":1,"fields":[]}`, `{"version":1,"fields":{"big":"x"}}`, `{"version":1,"fields":{"inner":1}}`} {
		if Read(json.RawMessage(bad), 1, b.fields()) == nil {
			t.Errorf("%s is read", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":1,"fields":{"big":7,"places":["a"],"ring":[1,2,3,4]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a := new(thing)
		if Read(text, 1, a.fields()) != nil {
			return
		}
		again, err := Write(1, a.fields())
		if err != nil {
			t.Fatal(err)
		}
		if err := Read(again, 1, new(thing).fields()); err != nil {
			t.Errorf("%s is not read again: %v", again, err)
		}
	})
}
