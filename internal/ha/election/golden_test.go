package election

import (
	"testing"
	"time"

	"proxyd/internal/ha/wire/wiretest"
)

func TestMsgKeepsItsFormat(t *testing.T) {
	msg := Msg{Kind: Waive, Term: 1001, Sent: 5, To: "10.0.0.2:7946", Reason: Preempt, Chosen: true,
		Info: Info{Holds: true, Hears: true, Ill: 9, Held: time.Minute, Prefer: 1}}
	all := wiretest.Golden(t, "v1/msg.hex", AppendMsg(nil, 1, msg))
	for i, b := range all {
		if got, err := ParseMsg(b, v1); err != nil || i == len(all)-1 && got != msg {
			t.Errorf("number %d is %+v, %v", i+1, got, err)
		}
	}
}
