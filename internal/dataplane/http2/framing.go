package http2

import (
	"errors"
	"strings"
	"unsafe"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/dataplane/http1"
)

// A framing is what both sides of a connection have alike: frames and fields of the peer are
// taken apart, and ours put together.
type framing struct {
	src     source
	frames  *http2.Framer
	fields  *hpack.Decoder
	encoder *hpack.Encoder
	block   []byte // what the encoder writes to
	name    []byte // a field's name in lower case
	out     []byte // what is to be sent
	frame   int    // the largest payload that the peer takes
	initial int64  // window of a new stream, by the peer
}

// begin makes w the framing of a peer of which nothing was read. emit gets its fields, of which
// none may be longer than most bytes.
func (w *framing) begin(emit func(hpack.HeaderField), most int) {
	w.frame, w.initial = frameBytes, startWindow
	w.frames = http2.NewFramer(w, &w.src)
	w.frames.SetReuseFrames()
	w.frames.SetMaxReadFrameSize(frameBytes)
	w.fields = hpack.NewDecoder(tableBytes, emit)
	w.fields.SetMaxStringLength(most)
	w.encoder = hpack.NewEncoder(blockWriter{w})
	// Nothing is remembered of what was said: no bytes are kept for a peer, and no secret of
	// one message can be guessed by the length of the next.
	w.encoder.SetMaxDynamicTableSizeLimit(0)
}

// A source gives the framer what is known to be a whole frame.
type source struct{ b []byte }

func (s *source) Read(p []byte) (int, error) {
	n := copy(p, s.b)
	s.b = s.b[n:]
	return n, nil
}

// Write appends what the framer writes.
func (w *framing) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

type blockWriter struct{ w *framing }

func (b blockWriter) Write(p []byte) (int, error) {
	b.w.block = append(b.w.block, p...)
	return len(p), nil
}

// Take returns what is to be sent, and has gathered nothing then. b is what was taken before,
// to be used again.
func (w *framing) Take(b []byte) []byte {
	out := w.out
	w.out = b[:0]
	return out
}

// Unsent returns how many bytes are to be sent.
func (w *framing) Unsent() int { return len(w.out) }

// cut takes the first frame off b: its length n, which is 0 while it is not all there. The
// error says what is wrong with the frame; blame takes it apart.
func (w *framing) cut(b []byte) (n int, f http2.Frame, err error) {
	if len(b) < frameHead {
		return 0, nil, nil
	}
	n = int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if n > frameBytes {
		return len(b), nil, http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	if n += frameHead; len(b) < n {
		return 0, nil, nil
	}
	kind := http2.FrameType(b[3])
	w.src.b = b[:n]
	f, err = w.frames.ReadFrame()
	if err != nil && kind == http2.FrameHeaders {
		// Its block was not decoded: what it has put into the table is not known (RFC 9113, 4.3).
		err = http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return n, f, err
}

// blame says what an error of cut means: for the stream id, or for the connection if that is 0.
func (w *framing) blame(err error) (id uint32, code http2.ErrCode, detail string) {
	var ofStream http2.StreamError
	var ofConn http2.ConnectionError
	switch {
	case errors.As(err, &ofStream):
		return ofStream.StreamID, ofStream.Code, "frame"
	case errors.As(err, &ofConn) && ofConn == http2.ConnectionError(http2.ErrCodeFrameSize):
		return 0, http2.ErrCodeFrameSize, "a frame of a size that it may not have"
	case errors.As(err, &ofConn):
		if d := w.frames.ErrorDetail(); d != nil {
			return 0, http2.ErrCode(ofConn), d.Error()
		}
		return 0, http2.ErrCode(ofConn), "frame"
	}
	return 0, http2.ErrCodeProtocol, err.Error()
}

// accept takes in settings that both sides have, and calls other for each setting. It returns
// by how much the windows of all streams change (RFC 9113, 6.9.2): once for a frame, however
// often it says so.
func (w *framing) accept(f *http2.SettingsFrame, other func(http2.Setting) error) (more int64, err error) {
	window := w.initial
	err = f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			window = int64(s.Val)
		case http2.SettingMaxFrameSize:
			w.frame = int(min(s.Val, 4*frameBytes))
		}
		return other(s)
	})
	more = window - w.initial
	w.initial = window
	return more, err
}

// frameHead appends the head of a frame.
func (w *framing) frameHead(n int, kind http2.FrameType, flags http2.Flags, id uint32) {
	w.out = append(w.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// fits returns how many of n bytes of a body one frame may have, by a window, what waits to be
// sent already, and the peer's frames. 0 is also of an end without bytes, which needs no room.
func (w *framing) fits(n int, window int64, most int) int {
	return max(0, min(n, int(window), w.frame, most-len(w.out)))
}

// sendBlock sends the fields in w.block on a stream, in as many frames as they need, and returns
// how many bytes those are.
func (w *framing) sendBlock(id uint32, end bool) int {
	from := len(w.out)
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for first, rest := true, w.block; first || len(rest) > 0; first = false {
		n := min(len(rest), w.frame)
		if n == len(rest) {
			flags |= http2.FlagHeadersEndHeaders
		}
		w.frameHead(n, kind, flags, id)
		w.out = append(w.out, rest[:n]...)
		rest, kind, flags = rest[n:], http2.FrameContinuation, 0
	}
	return len(w.out) - from
}

// writeLines writes field lines of HTTP/1.1.
func (w *framing) writeLines(lines []byte) {
	for len(lines) > 0 {
		var name, value []byte
		name, value, lines = http1.CutLine(lines)
		w.writeField(name, value)
	}
}

// writeField writes a field of HTTP/1.1.
func (w *framing) writeField(name, value []byte) {
	w.name = w.name[:0]
	for _, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		w.name = append(w.name, b)
	}
	w.write(text(w.name), text(value))
}

func (w *framing) write(name, value string) {
	_ = w.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // to memory; with a table of no size it keeps neither
}

// text is b as a string that nobody keeps.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// goodTrailer reports whether a field may be one of trailers.
func goodTrailer(name, value string) bool {
	if name == "" || name[0] == ':' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return !strings.ContainsAny(value, "\x00\r\n")
}
