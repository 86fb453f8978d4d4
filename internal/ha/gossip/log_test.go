package gossip

import (
	"log/slog"
	"sync/atomic"
	"testing"
)

// What strangers can cause is counted; what a node does itself is not.
func TestLinesOfStrangersAreCounted(t *testing.T) {
	var refused atomic.Uint64
	f := &logFilter{log: slog.New(slog.DiscardHandler), refused: &refused}
	for line, counts := range map[string]bool{
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.9:7946": true,
		"[ERR] memberlist: discarding packet with unacceptable label \"x\": from=10.0.0.9:7946":                   true,
		"[ERR] memberlist: discarding stream with unacceptable label \"\": from=10.0.0.9:41844":                   true,
		"[ERR] memberlist: failed to receive and remove the stream label header: unexpected EOF":                  true,
		"[ERR] memberlist: failed to receive: remote state is encrypted from=10.0.0.9:41844":                      true,
		"[ERR] memberlist: cannot decode label; packet has been truncated from=10.0.0.9:7946":                     true,
		"[ERR] memberlist: missing message type byte from=10.0.0.9:7946":                                          true,
		"[ERR] memberlist: Received invalid msgType (7) from=10.0.0.9:7946":                                       true,
		"[ERR] memberlist: Failed to read remote state: EOF from=10.0.0.9:7946":                                   true,
		"[ERR] memberlist: Failed to send gossip to 10.0.0.2:7946: network is unreachable":                        false,
		"[WARN] memberlist: Refuting a suspect message (from: 10.0.0.2:7946)":                                     false,
	} {
		was := refused.Load()
		if _, err := f.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if got := refused.Load() > was; got != counts {
			t.Errorf("%s: counted %v, want %v", line, got, counts)
		}
	}
}
