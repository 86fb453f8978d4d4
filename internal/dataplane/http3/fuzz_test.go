package http3

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/quicvarint"

	"proxyd/internal/dataplane"
)

// Whatever begins with the head of a frame is read as quic-go reads two numbers, and nothing
// is read of what breaks off.
func FuzzFrameHead(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x01, 0x05, 'h'})
	f.Add([]byte{0x40, 0x01, 0x80, 0, 0, 5})
	f.Add([]byte{0xc0, 0, 0, 0, 0, 0, 0, 0x21, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, length, used := FrameHead(b)
		r := quicvarint.NewReader(bytes.NewReader(b))
		wantKind, err := quicvarint.Read(r)
		var wantLength uint64
		if err == nil {
			wantLength, err = quicvarint.Read(r)
		}
		if (err == nil) != (used > 0) {
			t.Fatalf("FrameHead(%x) used %d bytes, a reader says %v", b, used, err)
		}
		if used == 0 {
			return
		}
		if kind != wantKind || length != wantLength || used > MaxFrameHead || used > len(b) {
			t.Fatalf("FrameHead(%x) = %d, %d, %d, want %d, %d", b, kind, length, used, wantKind, wantLength)
		}
		again := AppendFrameHead(nil, kind, length)
		if k, l, n := FrameHead(again); k != kind || l != length || n != len(again) {
			t.Fatalf("written again it is %x, read as %d, %d, %d", again, k, l, n)
		}
	})
}

// SETTINGS are taken only if they are whole, each once, and none of HTTP/2.
func FuzzSettings(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x06, 0x40, 0x64, 0x08, 0x01})
	f.Add([]byte{0x06, 0x01, 0x06, 0x01})
	f.Add([]byte{0x02, 0x01})
	f.Add([]byte{0x08, 0x02})
	f.Add(AppendSettings(nil, 32<<10)[3:])
	f.Fuzz(func(t *testing.T, b []byte) {
		err := CheckSettings(b)
		var bad *Error
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("CheckSettings(%x) = %v, which ends no connection", b, err)
		}
		r := bytes.NewReader(b)
		var ids []uint64
		good := true
		for r.Len() > 0 && good {
			id, err := quicvarint.Read(r)
			value, err2 := quicvarint.Read(r)
			good = err == nil && err2 == nil && !slices.Contains(ids, id) && (id < 2 || id > 5) && (id != 8 || value < 2)
			ids = append(ids, id)
		}
		if good != (err == nil) {
			t.Fatalf("CheckSettings(%x) = %v, want %v", b, err, good)
		}
	})
}

// A field section is decoded or refused; nothing more is asked for than is wanted, and what is
// decoded can be written and read again.
func FuzzFields(f *testing.F) {
	section := func(fields ...string) []byte {
		var b bytes.Buffer
		e := qpack.NewEncoder(&b)
		for i := 0; i < len(fields); i += 2 {
			if err := e.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
				f.Fatal(err)
			}
		}
		return b.Bytes()
	}
	f.Add(section(":method", "GET", ":path", "/", "x", "y"), uint8(255))
	f.Add(section("content-length", "5"), uint8(1))
	f.Add([]byte{0, 0, 0xd1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, uint8(9))
	f.Add([]byte{2, 0, 0x80}, uint8(9)) // wants a dynamic table
	f.Add([]byte{0, 0, 0x2f, 0xff, 0xff, 0xff, 0xff, 0x7f}, uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, most uint8) {
		var got []qpack.HeaderField
		size := 0
		err := Fields(b, func(name, value string) bool {
			if len(got) == int(most) && len(got) > 0 {
				t.Fatalf("Fields goes on when no more is wanted")
			}
			got = append(got, qpack.HeaderField{Name: name, Value: value})
			size += len(name) + len(value)
			return len(got) < int(most)
		})
		var bad *Error
		if err != nil && (!errors.As(err, &bad) || bad.Code != DecompressionFailed) {
			t.Fatalf("Fields(%x) = %v, which ends no connection", b, err)
		}
		// A byte names at most one field of the static table, the longest of which has less than 128 bytes, or
		// is a symbol of at least 5 bits.
		if size > 128*len(b) {
			t.Fatalf("%d bytes were made of %d", size, len(b))
		}
		var again bytes.Buffer
		e := qpack.NewEncoder(&again)
		for _, h := range got {
			_ = e.WriteField(h)
		}
		var back []qpack.HeaderField
		if len(got) > 0 {
			if err := Fields(again.Bytes(), func(name, value string) bool {
				back = append(back, qpack.HeaderField{Name: name, Value: value})
				return true
			}); err != nil || !slices.Equal(back, got) {
				t.Fatalf("written again, %q is %q, %v", got, back, err)
			}
		}
	})
}

// The head of an answer is one HEADERS frame, whose fields are those of the answer that
// HTTP/3 may have, in lower case.
func FuzzHead(f *testing.F) {
	f.Add(200, "Content-Type", "text/plain", int64(5))
	f.Add(304, "X", "", int64(0))
	f.Add(103, "Link", "</a>; rel=preload", int64(-1))
	f.Fuzz(func(t *testing.T, status int, name, value string, length int64) {
		if name == "" || status < 100 || status > 999 || length < -1 {
			return
		}
		r := dataplane.Response{Status: status, Length: length}
		r.Header.Add(dataplane.Other, []byte(name), []byte(value))
		var w Writer
		b := w.AppendHead([]byte("before"), &r, []byte("now"))
		b = b[len("before"):]
		if r.HeadBytes != len(b) {
			t.Fatalf("HeadBytes = %d of %d", r.HeadBytes, len(b))
		}
		kind, n, used := FrameHead(b)
		if kind != FrameHeaders || used == 0 || n != uint64(len(b)-used) {
			t.Fatalf("the frame is of type %d with %d bytes of %d", kind, n, len(b))
		}
		var names []string
		if err := Fields(b[used:], func(n, v string) bool {
			names = append(names, n)
			if len(names) == 2 && (n != string(bytes.ToLower([]byte(name))) && isASCII(name) || v != value) {
				t.Fatalf("%q: %q is read as %q: %q", name, value, n, v)
			}
			return true
		}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if len(names) < 2 || names[0] != ":status" {
			t.Fatalf("the fields are %q", names)
		}
	})
}

func isASCII(s string) bool {
	for _, c := range []byte(s) {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
