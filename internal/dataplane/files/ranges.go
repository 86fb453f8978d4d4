package files

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"proxyd/internal/dataplane"
)

// A span is a part of a file. From -1 is none.
type span struct{ from, size int64 }

const (
	maxRanges = 16  // of a request; with more of them Range is ignored
	smallGap  = 128 // between two ranges: what lies in it costs no more than a part of its own
)

// parseRanges returns the parts that a request wants (RFC 9110, 14.1.2), none for the
// whole file, or false for what cannot be given. Of an empty file anybody gets all.
func parseRanges(h dataplane.Header, size int64) (spans []span, good bool) {
	c := conditions{header: h}
	v, count := c.one("Range")
	if count != 1 || size == 0 {
		return nil, true
	}
	unit, list, found := bytes.Cut(v, []byte("="))
	if !found || !bytes.EqualFold(unit, unitBytes) {
		return nil, true // 14.2: an unknown unit is ignored
	}
	wanted := 0
	for item := range bytes.SplitSeq(list, []byte(",")) {
		item = bytes.Trim(item, " \t")
		if len(item) == 0 {
			continue // 5.6.1.2: empty elements of a list are ignored
		}
		if wanted++; wanted > maxRanges {
			return nil, true
		}
		s, valid := parseRange(item, size)
		switch {
		case !valid:
			return nil, false
		case s.from >= 0:
			spans = append(spans, s)
		}
	}
	return coalesce(spans), len(spans) > 0
}

// parseRange reads one range. A valid one that the file does not have is from -1.
func parseRange(item []byte, size int64) (s span, valid bool) {
	none := span{-1, 0}
	before, after, found := bytes.Cut(item, []byte("-"))
	if !found || len(before)+len(after) == 0 {
		return none, false
	}
	last, ok := digits(after)
	if !ok {
		return none, false
	}
	if len(before) == 0 { // the last bytes
		n := min(last, size)
		if n == 0 {
			return none, true
		}
		return span{size - n, n}, true
	}
	first, ok := digits(before)
	if !ok || len(after) > 0 && last < first {
		return none, false
	}
	if first >= size {
		return none, true
	}
	if len(after) == 0 || last >= size {
		last = size - 1
	}
	return span{first, last - first + 1}, true
}

// digits reads a number; one that is too large is the largest, and nothing is 0.
func digits(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-9)/10 {
			n = math.MaxInt64 / 10
			continue
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// coalesce joins ranges that overlap or nearly touch (15.3.7.2). Ranges that do neither
// stay in the order of the request.
func coalesce(spans []span) []span {
	if len(spans) < 2 {
		return spans
	}
	sorted := slices.Clone(spans)
	slices.SortFunc(sorted, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	joined := sorted[:1]
	for _, s := range sorted[1:] {
		last := &joined[len(joined)-1]
		if s.from > last.from+last.size+smallGap {
			joined = append(joined, s)
			continue
		}
		last.size = max(last.from+last.size, s.from+s.size) - last.from
	}
	if len(joined) == len(spans) {
		return spans
	}
	return joined
}

// rangeField says which part of the file an answer holds, or only how long it is.
func (f *file) rangeField(x *dataplane.Exchange, s span) {
	x.Response.Header.Add(dataplane.Other, nameContentRange, f.appendRange(nil, s))
}

func (f *file) appendRange(b []byte, s span) []byte {
	b = append(b, "bytes "...)
	if s.from < 0 {
		b = append(b, '*')
	} else {
		b = strconv.AppendInt(b, s.from, 10)
		b = append(b, '-')
		b = strconv.AppendInt(b, s.from+s.size-1, 10)
	}
	b = append(b, '/')
	return strconv.AppendInt(b, f.size, 10)
}

// parts answers with several parts of the file (RFC 9110, 14.6).
func (f *file) parts(x *dataplane.Exchange, spans []span, now time.Time) {
	boundary := rand.Text()
	var readers []io.Reader
	length := int64(0)
	for i, s := range spans {
		var head []byte
		if i > 0 {
			head = append(head, "\r\n"...)
		}
		head = append(append(append(head, "--"...), boundary...), "\r\nContent-Type: "...)
		head = append(append(head, f.kind...), "\r\nContent-Range: "...)
		head = append(f.appendRange(head, s), "\r\n\r\n"...)
		readers = append(readers, bytes.NewReader(head), io.NewSectionReader(f.File, s.from, s.size))
		length += int64(len(head)) + s.size
	}
	end := []byte("\r\n--" + boundary + "--\r\n")
	readers = append(readers, bytes.NewReader(end))
	x.Response.Length = length + int64(len(end))
	x.Response.Read = &partsReader{io.MultiReader(readers...), f}
	f.describe(x, []byte("multipart/byteranges; boundary="+boundary), now)
}

// A partsReader reads parts of a file and closes it.
type partsReader struct {
	io.Reader
	file *file
}

func (m *partsReader) Close() error { return m.file.Close() }
