package beat

import (
	"bytes"
	"testing"

	"proxyd/internal/ha/wire"
	"proxyd/internal/ha/wire/wiretest"
	"proxyd/internal/memory/memorytest"
)

// goldenKeys are the keys of the golden files; with them what is sealed is the same each time.
var goldenKeys = keys{[]byte("a secret of the cluster"), "edge"}

func TestDatagramKeepsItsFormat(t *testing.T) {
	c, err := goldenKeys.life(one, two, 5)
	if err != nil {
		t.Fatal(err)
	}
	h, p := head{1, 1, mark(one), mark(two), 5, 9}, proof{challenge: 1, echo: 2, stood: 3, flags: smooth}
	for i, b := range wiretest.Golden(t, "v1/datagram.hex", seal(nil, c, h, p, []byte("payload"))) {
		got, err := parseHead(b, wire.Range{Oldest: 1, Newest: 1})
		if err != nil || got != h {
			t.Fatalf("number %d: its head is %+v, %v", i+1, got, err)
		}
		if gotProof, payload, err := open(nil, b, c); err != nil || gotProof != p || !bytes.Equal(payload, []byte("payload")) {
			t.Errorf("number %d: %+v, %q, %v", i+1, gotProof, payload, err)
		}
	}
}

func TestLifelineKeepsItsFormat(t *testing.T) {
	var nonce [nonceOfCall]byte
	copy(nonce[:], "a nonce")
	msg, err := goldenKeys.call(1, mark(one), nonce, two)
	if err != nil {
		t.Fatal(err)
	}
	wiretest.Golden(t, "v1/call.hex", msg)
	answer, err := goldenKeys.answer(1, nonce, two)
	if err != nil {
		t.Fatal(err)
	}
	wiretest.Golden(t, "v1/answer.hex", answer)
}

func TestAnUpgradeForgetsNothingOfASession(t *testing.T) {
	var s session
	memorytest.Complete(t, &s, s.fields(), "cipher") // derived anew
}
