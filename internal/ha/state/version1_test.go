package state

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"proxyd/internal/ha/wire"
)

var v1 = wire.Range{Oldest: 1, Newest: 1}

// version1 is what the first release sends: a live entry and one that was deleted. It is
// never changed. A later release reads it, or it cannot be in one cluster with the first.
const version1 = "01" +
	"00" + "0000000000000007" + "0000000000000009" + "0000000000000000" +
	"06" + "656467652d31" + "06" + "6368616e6765" + "06" + "7075626c6963" + "00000002" + "7b7d" +
	"01" + "0000000000000008" + "000000000000000a" + "000000006925c100" +
	"06" + "656467652d32" + "03" + "62616e" + "01" + "78" + "00000000"

func TestVersion1IsReadForEver(t *testing.T) {
	b, err := hex.DecodeString(version1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b, v1)
	if err != nil || len(got) != 2 {
		t.Fatalf("Decode = %+v, %v", got, err)
	}
	live, dead := got[0], got[1]
	if live.Kind != "change" || live.Key != "public" || string(live.Value) != "{}" || live.Deleted || live.Stamp != (Stamp{7, 9, "edge-1"}) || !live.Expires.IsZero() {
		t.Errorf("the first is %+v", live)
	}
	if dead.Kind != "ban" || dead.Key != "x" || !dead.Deleted || dead.Stamp != (Stamp{8, 10, "edge-2"}) || !dead.Expires.Equal(time.Unix(0x6925c100, 0)) {
		t.Errorf("the second is %+v", dead)
	}
	if again := Append(nil, 1, got); !bytes.Equal(again, b) {
		t.Errorf("written again it is %x", again)
	}
}
