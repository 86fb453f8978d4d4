// Package http3 reads and writes what HTTP/3 (RFC 9114) puts on the streams of QUIC: frames,
// settings and field sections (QPACK, RFC 9204). It works on bytes alone. There is no
// dynamic table, neither ours nor the client's: a field section is read as it comes, and
// nothing grows with what a client sends.
package http3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/quicvarint"

	"proxyd/internal/dataplane"
)

// A Code is why a stream or a connection ends (RFC 9114, 8.1; RFC 9204, 6).
type Code uint64

const (
	NoError              Code = 0x100
	GeneralProtocolError Code = 0x101
	InternalError        Code = 0x102
	StreamCreationError  Code = 0x103
	ClosedCriticalStream Code = 0x104
	FrameUnexpected      Code = 0x105
	FrameError           Code = 0x106
	ExcessiveLoad        Code = 0x107
	IDError              Code = 0x108
	SettingsError        Code = 0x109
	MissingSettings      Code = 0x10a
	RequestRejected      Code = 0x10b
	RequestCancelled     Code = 0x10c
	RequestIncomplete    Code = 0x10d
	MessageError         Code = 0x10e
	ConnectError         Code = 0x10f
	VersionFallback      Code = 0x110
	DecompressionFailed  Code = 0x200
	EncoderStreamError   Code = 0x201
)

// An Error ends the connection on which it was found (RFC 9114, 8).
type Error struct {
	Code   Code
	Detail string
}

func (e *Error) Error() string { return fmt.Sprintf("HTTP/3 error %#x: %s", uint64(e.Code), e.Detail) }

// Types of frames (RFC 9114, 7.2) and of streams (6.2; RFC 9204, 4.2).
const (
	FrameData        = 0x0
	FrameHeaders     = 0x1
	FrameCancelPush  = 0x3
	FrameSettings    = 0x4
	FramePushPromise = 0x5
	FrameGoAway      = 0x7
	FrameMaxPushID   = 0xd

	StreamControl = 0x0
	StreamPush    = 0x1
	StreamEncoder = 0x2
	StreamDecoder = 0x3
)

// MaxFrameHead is how many bytes the type and the length of a frame have at the most.
const MaxFrameHead = 16

// FrameHead reads the type and the length of the frame that begins b. used is 0 if there
// must be more of it.
func FrameHead(b []byte) (kind, length uint64, used int) {
	kind, n, err := quicvarint.Parse(b)
	if err != nil {
		return 0, 0, 0
	}
	length, m, err := quicvarint.Parse(b[n:])
	if err != nil {
		return 0, 0, 0
	}
	return kind, length, n + m
}

// AppendFrameHead appends the type and the length of a frame.
func AppendFrameHead(b []byte, kind, length uint64) []byte {
	return quicvarint.Append(quicvarint.Append(b, kind), length)
}

// Reserved reports whether a type is that of a frame of HTTP/2 which HTTP/3 does not have: an
// error wherever it is (RFC 9114, 7.2.8).
func Reserved(kind uint64) bool { return kind == 0x2 || kind == 0x6 || kind == 0x8 || kind == 0x9 }

// OnControl reports whether a frame that we know belongs on the control stream alone.
func OnControl(kind uint64) bool {
	return kind == FrameCancelPush || kind == FrameSettings || kind == FrameGoAway || kind == FrameMaxPushID
}

const (
	settingFieldSection    = 0x6
	settingExtendedConnect = 0x8 // RFC 9220
)

// AppendSettings appends the beginning of our control stream: its type, and SETTINGS.
// fieldSection is how large a field section of the client may be.
func AppendSettings(b []byte, fieldSection int) []byte {
	var body []byte
	body = quicvarint.Append(body, settingFieldSection)
	body = quicvarint.Append(body, uint64(fieldSection))
	body = quicvarint.Append(body, settingExtendedConnect)
	body = quicvarint.Append(body, 1)
	b = quicvarint.Append(b, StreamControl)
	b = AppendFrameHead(b, FrameSettings, uint64(len(body)))
	return append(b, body...)
}

// MaxSettings is how long the client's SETTINGS may be.
const MaxSettings = 4 << 10

// CheckSettings refuses SETTINGS that RFC 9114, 7.2.4 does. What a client can do beyond what
// we use is not remembered.
func CheckSettings(b []byte) error {
	seen := map[uint64]bool{}
	for len(b) > 0 {
		id, n, err := quicvarint.Parse(b)
		if err != nil {
			return &Error{FrameError, "a setting breaks off"}
		}
		value, m, err := quicvarint.Parse(b[n:])
		if err != nil {
			return &Error{FrameError, "a setting breaks off"}
		}
		b = b[n+m:]
		switch {
		case seen[id]:
			return &Error{SettingsError, "a setting is there twice"}
		case id >= 0x2 && id <= 0x5:
			return &Error{SettingsError, "a setting of HTTP/2"}
		case id == settingExtendedConnect && value > 1:
			return &Error{SettingsError, "neither on nor off"}
		}
		seen[id] = true
	}
	return nil
}

// AppendGoAway appends GOAWAY: no request from id on is had any more.
func AppendGoAway(b []byte, id uint64) []byte {
	b = AppendFrameHead(b, FrameGoAway, uint64(quicvarint.Len(id)))
	return quicvarint.Append(b, id)
}

// Fields decodes a field section and gives each field to take, which says whether it wants
// more.
func Fields(section []byte, take func(name, value string) bool) error {
	next := qpack.NewDecoder().Decode(section)
	for {
		f, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &Error{DecompressionFailed, err.Error()}
		}
		if !take(f.Name, f.Value) {
			return nil
		}
	}
}

// A Writer makes HEADERS frames. Its zero value is ready for use.
type Writer struct {
	block   bytes.Buffer
	encoder *qpack.Encoder
	name    []byte
}

// AppendHead appends the head of an answer. date is for one without a Date. It notes the size
// in r.HeadBytes.
func (w *Writer) AppendHead(b []byte, r *dataplane.Response, date []byte) []byte {
	w.begin()
	w.write(":status", strconv.Itoa(r.Status))
	for i := range r.Header {
		f := &r.Header[i]
		switch f.ID {
		case dataplane.ContentLength, dataplane.TransferEncoding, dataplane.Connection, dataplane.KeepAlive,
			dataplane.ProxyConnection, dataplane.Upgrade, dataplane.HTTP2Settings, dataplane.SecWebSocketAccept:
			continue // RFC 9114, 4.2
		}
		w.write(w.lower(f.Name), string(f.Value))
	}
	if r.Status >= 200 {
		if date != nil && r.Header.Get(dataplane.Date) == nil {
			w.write("date", string(date))
		}
		if r.Status != 204 && (r.Length > 0 || r.Length == 0 && r.Status != 304) {
			w.write("content-length", strconv.FormatInt(r.Length, 10))
		}
	}
	from := len(b)
	b = w.end(b)
	r.HeadBytes = len(b) - from
	return b
}

// AppendTrailers appends field lines of HTTP/1.1, each with its end, as the trailers of an answer.
func (w *Writer) AppendTrailers(b, lines []byte) []byte {
	w.begin()
	for len(lines) > 0 {
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if ok {
			w.write(w.lower(name), string(bytes.Trim(value, " \t")))
		}
	}
	return w.end(b)
}

func (w *Writer) begin() {
	w.block.Reset()
	if w.encoder == nil {
		w.encoder = qpack.NewEncoder(&w.block)
	}
}

func (w *Writer) write(name, value string) {
	_ = w.encoder.WriteField(qpack.HeaderField{Name: name, Value: value}) // to memory
}

func (w *Writer) lower(name []byte) string {
	w.name = w.name[:0]
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		w.name = append(w.name, c)
	}
	return string(w.name)
}

// end appends the frame.
func (w *Writer) end(b []byte) []byte {
	_ = w.encoder.Close() // it only forgets that it has begun
	b = AppendFrameHead(b, FrameHeaders, uint64(w.block.Len()))
	return append(b, w.block.Bytes()...)
}
