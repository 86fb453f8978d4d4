package filter

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"

	gzipwriter "github.com/klauspost/compress/gzip"
)

// maxPadding is the most by which an answer is made longer. The head of a padding of br has room
// for so many.
const maxPadding = 256

// padding is what every padding is a part of. It lies in the body, since the head is apart from that
// in what is seen of an encrypted connection. What it says does not matter: it is encrypted, and
// not compressed.
var padding = strings.Repeat("x", maxPadding)

// draw chooses how much longer an answer becomes, from nothing to most bytes. Nobody can foresee
// it: the generator is seeded by the system.
func draw(most int) int {
	if most <= 0 {
		return 0
	}
	return rand.IntN(min(most, maxPadding) + 1)
}

// padHead prepares an encoder whose padding is in the head of what it writes: a comment (RFC 1952,
// 2.3).
func (p *packer) padHead() {
	if e, ok := p.encoder.(*gzipwriter.Writer); ok && p.pad > 0 {
		e.Comment = padding[:p.pad]
	}
}

// end ends the coded answer, with its padding where that is not in the head: whoever decodes it
// has all of the answer by then.
func (p *packer) end() error {
	if p.pad == 0 {
		return p.encoder.Close()
	}
	to := (*counter)(p)
	switch p.coding {
	case brotli:
		err := p.encoder.Flush() // to the next whole byte
		if err == nil {
			err = padBrotli(to, p.pad)
		}
		if err2 := p.encoder.Close(); err == nil {
			err = err2
		}
		return err
	case zstandard:
		if err := p.encoder.Close(); err != nil {
			return err
		}
		return padZstandard(to, p.pad)
	}
	return p.encoder.Close()
}

// padBrotli writes a meta-block of n bytes that decoders skip (RFC 7932, 9.2): not the last one
// (1 bit), metadata (3 in 2 bits, a zero), one byte of length (1 in 2 bits), the length less one, and
// zeros to the next byte.
func padBrotli(w io.Writer, n int) error {
	var b [2 + maxPadding]byte
	binary.LittleEndian.PutUint16(b[:], uint16(n-1)<<6|1<<4|3<<1)
	_, err := w.Write(b[:2+copy(b[2:], padding[:n])])
	return err
}

// padZstandard writes a frame of n bytes that decoders skip (RFC 8878, 3.1.2).
func padZstandard(w io.Writer, n int) error {
	const magic = 0x184D2A50
	var b [8 + maxPadding]byte
	binary.LittleEndian.PutUint32(b[:], magic)
	binary.LittleEndian.PutUint32(b[4:], uint32(n))
	_, err := w.Write(b[:8+copy(b[8:], padding[:n])])
	return err
}
