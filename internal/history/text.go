package history

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
)

// On disk an entry is a line: the CRC-32C of the rest in eight hexadecimal digits, a
// space, and the entry as JSON.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLine appends e as a line.
func appendLine(b []byte, e *Entry) []byte {
	text, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("history: an entry that is no JSON: %v", err)) // its fields are texts and numbers
	}
	sum := crc32.Checksum(text, castagnoli)
	b = hex.AppendEncode(b, []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	b = append(append(append(b, ' '), text...), '\n')
	return b
}

// parse reads lines. whole is where the last complete line ends; bad counts lines that
// are no entry, the torn one at the end among them.
func parse(text []byte) (entries []Entry, whole int64, bad uint64) {
	for len(text) > 0 {
		line, rest, complete := bytes.Cut(text, []byte{'\n'})
		if !complete {
			return entries, whole, bad + 1
		}
		whole += int64(len(line)) + 1
		text = rest
		if e, ok := parseLine(line); ok {
			entries = append(entries, e)
		} else {
			bad++
		}
	}
	return entries, whole, bad
}

func parseLine(line []byte) (Entry, bool) {
	var sum [4]byte
	if len(line) < 10 || line[8] != ' ' {
		return Entry{}, false
	}
	if _, err := hex.Decode(sum[:], line[:8]); err != nil {
		return Entry{}, false
	}
	text := line[9:]
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	var e Entry
	if crc32.Checksum(text, castagnoli) != want || json.Unmarshal(text, &e) != nil || e.Node == "" {
		return Entry{}, false
	}
	return e, true
}

// Bounds of one entry, so that no neighbour and no operator can fill a disk with one.
const (
	maxText  = 500
	maxSteps = 40
)

// shorten keeps e within the bounds.
func (e *Entry) shorten() {
	for _, s := range []*string{&e.Node, &e.VIP, &e.From, &e.To, &e.Reason, &e.Text} {
		*s = (*s)[:min(len(*s), maxText)]
	}
	if len(e.Steps) > maxSteps {
		e.Steps = e.Steps[len(e.Steps)-maxSteps:]
	}
	for i := range e.Steps {
		if s := &e.Steps[i]; len(s.Text) > maxText {
			s.Text = s.Text[:maxText]
		}
	}
}

const (
	// maxShared is how many of its latest entries a node gives to the others,
	maxShared = 200
	// maxPacked how large they may be together, and maxUnpacked what is unpacked of what
	// another sent.
	maxPacked   = 64 << 10
	maxUnpacked = 1 << 20
)

// Pack makes of this node's latest entries what the other nodes Unpack.
func (r *Ring) Pack() []byte {
	for n := maxShared; n > 0; n /= 2 {
		var lines []byte
		for _, e := range r.Own(n) {
			lines = appendLine(lines, &e)
		}
		var out bytes.Buffer
		w, err := flate.NewWriter(&out, flate.BestCompression)
		if err != nil {
			panic(err) // only of a level that there is not
		}
		// A buffer takes all that it is given.
		_, _ = w.Write(lines)
		_ = w.Close()
		if out.Len() <= maxPacked {
			return out.Bytes()
		}
	}
	return nil
}

// Unpack reads what another node packed. Lines that are no entries are left out.
func Unpack(b []byte) ([]Entry, error) {
	r := flate.NewReader(bytes.NewReader(b))
	defer r.Close()
	lines, err := io.ReadAll(io.LimitReader(r, maxUnpacked))
	if err != nil {
		return nil, fmt.Errorf("history of another node: %w", err)
	}
	entries, _, _ := parse(lines)
	return entries, nil
}
