package engine

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"

	"proxyd/internal/dataplane/http3"
)

// FuzzHTTP3Control reads anything as a client's control stream and as its two streams of QPACK:
// each ends with an error that has a code, or where the stream does, and with no more frames
// counted than there are bytes.
func FuzzHTTP3Control(f *testing.F) {
	settings := []byte{http3.FrameSettings, 2, 6, 0}
	f.Add(settings)
	f.Add(append(settings[:4:4], http3.FrameGoAway, 1, 0))
	f.Add(append(settings[:4:4], 0x21, 3, 1, 2, 3))
	f.Add(append(settings[:4:4], 0x21, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	f.Add([]byte{http3.FrameSettings, 0xbf, 0xff, 0xff, 0xff})
	f.Add([]byte{0x20, 0x20, 0x3f})
	f.Add([]byte{0x40, 0x7f, 0xff, 0x80, 0x01})
	f.Fuzz(func(t *testing.T, said []byte) {
		said = said[:min(len(said), mostFrames)] // with more of them the connection ends
		for kind := range http3.StreamDecoder + 1 {
			h := &h3conn{}
			r := quicvarint.NewReader(bytes.NewReader(said))
			var err error
			if kind == http3.StreamControl {
				err = h.controls(r)
			} else {
				err = h.tables(r, uint64(kind))
			}
			var coded *http3.Error
			if !errors.As(err, &coded) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("stream %d of %x: %v", kind, said, err)
			}
			if h.frames > len(said) {
				t.Errorf("stream %d of %x: %d frames", kind, said, h.frames)
			}
		}
	})
}
