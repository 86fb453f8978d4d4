package gossip

import (
	"bytes"
	"log/slog"
	"sync/atomic"
)

// A logFilter takes memberlist's lines. What strangers can cause is counted, not
// written: a line for each of their packets would be their weapon. The rest is for debugging.
type logFilter struct {
	log     *slog.Logger
	refused *atomic.Uint64
}

// strange are words of the lines that a packet of another key or program causes.
var strange = [][]byte{
	[]byte("Decrypt packet failed"), []byte("failed to decrypt"), []byte("label header"), []byte("cannot decode label"), []byte("discarding "),
	[]byte("Failed to remove"), []byte("unknown packet"), []byte("Failed to decode"), []byte("Got bad"), []byte("msg type"),
	[]byte("failed to receive"), []byte("Failed to receive"), []byte("Remote state is encrypted"), []byte("not encrypted"),
	[]byte("unexpected encryption"), []byte("CRC"), []byte("Failed to decompress"), []byte("compound request"),
	[]byte("invalid msgType"), []byte("Message type"), []byte("missing message type"), []byte("truncated messages"),
	[]byte("Failed to read remote state"), []byte("Got invalid checksum"),
}

func (f *logFilter) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(errHead.Error())) {
		return len(line), nil // counted where it was seen
	}
	for _, s := range strange {
		if bytes.Contains(line, s) {
			f.refused.Add(1)
			f.log.Debug("memberlist", "line", string(bytes.TrimSpace(line)))
			return len(line), nil
		}
	}
	f.log.Debug("memberlist", "line", string(bytes.TrimSpace(line)))
	return len(line), nil
}
