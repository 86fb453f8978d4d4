package http1

// LastChunk ends a chunked body without trailers.
var LastChunk = []byte("0\r\n\r\n")

// AppendChunkHead appends the size line of a chunk of n bytes; CRLF follows the bytes.
func AppendChunkHead(dst []byte, n int) []byte {
	const hex = "0123456789abcdef"
	shift := 60
	for shift > 0 && n>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, hex[n>>shift&15])
	}
	return append(dst, '\r', '\n')
}

// A ChunkReader takes a chunked body apart (RFC 9112, 7.1). Extensions are checked, bounded
// and dropped, and so are trailers unless they are to be kept. The zero value is ready.
type ChunkReader struct {
	Keep     bool   // the trailer section is wanted
	Trailers []byte // the trailer section's lines so far, if Keep

	state  chunkState
	digits uint8
	left   uint64 // of the chunk's data
	line   int    // bytes of the size line so far
	extra  int    // bytes of all extensions so far
	tail   int    // bytes of the trailer section so far
	name   bool   // the trailer line has its colon
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerLine
	trailerLF
	chunkEndLF
	chunkDone
)

const (
	maxSizeLine   = 256
	maxExtensions = 16 << 10
	maxTrailers   = 8 << 10
)

// Reset makes c ready for the next body.
func (c *ChunkReader) Reset() { *c = ChunkReader{} }

// Left returns how many data bytes of the chunk at hand have not been read, so that
// they may be moved without being looked at. Skip tells of those.
func (c *ChunkReader) Left() int64 {
	if c.state != chunkData {
		return 0
	}
	return int64(c.left)
}

// Skip notes that n data bytes, at most Left, were moved past the reader.
func (c *ChunkReader) Skip(n int64) {
	c.left -= uint64(n)
	if c.left == 0 {
		c.state = chunkDataCR
	}
}

// Next reads from b until it has data or b is used up. It returns the data (a part of
// b), how many bytes of b were read, and whether the body is complete. The error is a
// *dataplane.Malformed.
func (c *ChunkReader) Next(b []byte) (data []byte, n int, done bool, err error) {
	for n < len(b) && c.state != chunkDone {
		if c.state == chunkData {
			take := int(min(uint64(len(b)-n), c.left))
			data = b[n : n+take]
			n += take
			c.Skip(int64(take))
			return data, n, false, nil
		}
		if bad := c.step(b[n]); bad != "" {
			return nil, n, false, malformed(400, "bad_chunk", bad)
		}
		n++
	}
	return nil, n, c.state == chunkDone, nil
}

// step takes in one byte outside the data and returns what is wrong with it.
func (c *ChunkReader) step(b byte) string {
	switch c.state {
	case chunkSize:
		c.line++
		switch {
		case is(b, hexDigit):
			if c.digits == 15 {
				return "size too large"
			}
			c.digits++
			c.left = c.left<<4 | uint64(unhex(b))
		case c.digits == 0:
			return "no size"
		case b == ';':
			c.state = chunkExtension
		case b == '\r':
			c.state = chunkSizeLF
		default:
			return "size"
		}
	case chunkExtension:
		c.line++
		c.extra++
		switch {
		case b == '\r':
			c.state = chunkSizeLF
		case b < 0x20 && b != '\t' || b == 0x7f:
			return "control in extension"
		case c.line > maxSizeLine || c.extra > maxExtensions:
			return "extension too long"
		}
	case chunkSizeLF:
		if b != '\n' {
			return "bare CR after size"
		}
		c.line, c.digits = 0, 0
		c.state = chunkData
		if c.left == 0 {
			c.state = trailerStart
		}
	case chunkDataCR:
		if b != '\r' {
			return "data longer than its size"
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return "data longer than its size"
		}
		c.state = chunkSize
	case trailerStart:
		switch {
		case b == '\r':
			c.state = chunkEndLF
		case is(b, token):
			c.state, c.name = trailerLine, false
			return c.trailerByte(b)
		default:
			return "trailer"
		}
	case trailerLine:
		switch {
		case b == '\r' && c.name:
			c.state = trailerLF
		case !c.name && b == ':':
			c.name = true
		case !c.name && !is(b, token), b < 0x20 && b != '\t', b == 0x7f:
			return "trailer"
		}
		return c.trailerByte(b)
	case trailerLF:
		if b != '\n' {
			return "bare CR in trailer"
		}
		if c.Keep {
			c.Trailers = append(c.Trailers, '\n')
		}
		c.state = trailerStart
	case chunkEndLF:
		if b != '\n' {
			return "bare CR at the end"
		}
		c.state = chunkDone
	}
	return ""
}

// trailerByte counts, and keeps, a byte of a trailer line. Of the line's end that is the CR.
func (c *ChunkReader) trailerByte(b byte) string {
	if c.tail++; c.Keep {
		c.Trailers = append(c.Trailers, b)
	}
	if c.tail > maxTrailers {
		return "trailers too long"
	}
	return ""
}
