package history

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"proxyd/internal/ondisk"
)

// On disk an entry is a line: the CRC-32C of the rest in eight hexadecimal digits, a
// space, and the entry as JSON. One without a version is of the first. What a later
// release wrote stays in the file and is passed over.
const lineVersion = 1

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
// are no entry, the torn one at the end among them, and newer those of a later release.
func parse(text []byte) (entries []Entry, whole int64, bad, newer uint64) {
	for len(text) > 0 {
		line, rest, complete := bytes.Cut(text, []byte{'\n'})
		if !complete {
			return entries, whole, bad + 1, newer
		}
		whole += int64(len(line)) + 1
		text = rest
		switch e, err := parseLine(line); {
		case err == nil:
			entries = append(entries, e)
		case errors.Is(err, ondisk.ErrNewer):
			newer++
		default:
			bad++
		}
	}
	return entries, whole, bad, newer
}

var errLine = errors.New("no entry")

func parseLine(line []byte) (Entry, error) {
	var sum [4]byte
	if len(line) < 10 || line[8] != ' ' {
		return Entry{}, errLine
	}
	if _, err := hex.Decode(sum[:], line[:8]); err != nil {
		return Entry{}, errLine
	}
	text := line[9:]
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	var e Entry
	if crc32.Checksum(text, castagnoli) != want {
		return Entry{}, errLine
	}
	if err := ondisk.Check(text, lineVersion); err != nil {
		return Entry{}, err
	}
	if json.Unmarshal(text, &e) != nil || e.Node == "" {
		return Entry{}, errLine
	}
	return e, nil
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
	entries, _, _, _ := parse(lines)
	return entries, nil
}
