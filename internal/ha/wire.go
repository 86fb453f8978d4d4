package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

// A frame, of one version of the wire, is what a node gives to Mesh.Send:
//
//	version 1 | records: kind 1 | length 2 | body
//
// Records of an unknown kind, and bytes behind what is known of a body, are skipped: a
// later release may add either without a new version. Numbers are varints of
// encoding/binary, texts are a length byte and up to 255 bytes.

// maxFrame keeps a frame, sealed and in an envelope of memberlist, within one packet of
// an Ethernet. What does not fit goes into a further frame.
const maxFrame = 1200

type recordKind uint8

const (
	helloRecord recordKind = 1 + iota
	tenureRecord
	electionRecord
	requestRecord
	noteRecord

	pulseRecord recordKind = 32
	seatRecord  recordKind = 33
)

// hello is what a node says of itself with every beat.
type hello struct {
	Seq     uint64 // grows; an older one that comes late is passed over
	State   State
	Uptime  time.Duration
	Name    string
	Version string
	Config  string // hash of the configuration
	Voters  uint64 // hash of the list of voters
	Reason  string // why it is unfit
	Witness bool   // it votes and never holds
	Last    bool   // of one that drains: it holds where nobody else can
}

// tenure is what a node says of one VIP with every beat.
type tenure struct {
	Seq    uint64 // of the hello that it belongs to
	VIP    string
	Holds  bool
	Term   uint64
	Held   time.Duration // for how long
	Reason election.Reason
	From   string // who held before, by name, if the holder knows
	Text   string // what the operator gave as the reason
	Chosen bool   // an operator wants it there, though another candidate is better
	Fault  string `json:",omitempty"` // why it could not hold it when it last tried; "" if it could
}

// ballot is a message of the election of one VIP.
type ballot struct {
	VIP string
	Msg election.Msg
}

// request asks the holder of a VIP to hand it over.
type request struct {
	ID     uint64 // random; the same in every repetition
	VIP    string
	To     election.ID
	Chosen bool // somebody wants it there, though another candidate is better
}

// note says what the operator gave as the reason for a change that is about to come.
type note struct {
	VIP  string
	Text string
}

// frame collects records on their way to one voter.
type frame struct {
	buf     []byte
	version uint8
	send    func([]byte)
}

// add appends a record. A full frame is sent first.
func (f *frame) add(kind recordKind, body func(b []byte) []byte) {
	start := len(f.buf)
	if start == 0 {
		f.buf = append(f.buf, f.version)
		start = 1
	}
	f.buf = append(f.buf, byte(kind), 0, 0)
	f.buf = body(f.buf)
	binary.BigEndian.PutUint16(f.buf[start+1:], uint16(len(f.buf)-start-3))
	if len(f.buf) > maxFrame && start > 1 {
		f.send(f.buf[:start])
		f.buf = append(f.buf[:1], f.buf[start:]...)
	}
}

// flush sends what was collected, if anything.
func (f *frame) flush() {
	if len(f.buf) > 1 {
		f.send(f.buf)
	}
	f.buf = f.buf[:0]
}

func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(b, byte(len(s))), s...)
}

func (h *hello) append(b []byte) []byte {
	b = binary.AppendUvarint(b, h.Seq)
	b = append(b, byte(h.State))
	b = binary.AppendUvarint(b, uint64(max(h.Uptime, 0)))
	b = appendText(b, h.Name)
	b = appendText(b, h.Version)
	b = appendText(b, h.Config)
	b = binary.BigEndian.AppendUint64(b, h.Voters)
	b = appendText(b, h.Reason)
	return append(b, flag(h.Witness)|flag(h.Last)<<1)
}

func (t *tenure) append(b []byte) []byte {
	b = binary.AppendUvarint(b, t.Seq)
	b = appendText(b, t.VIP)
	b = append(b, flag(t.Holds))
	b = binary.AppendUvarint(b, t.Term)
	b = binary.AppendUvarint(b, uint64(max(t.Held, 0)))
	b = appendText(b, string(t.Reason))
	b = appendText(b, t.From)
	b = appendText(b, t.Text)
	b = append(b, flag(t.Chosen))
	if t.Fault != "" { // a release before skips it
		b = appendText(b, t.Fault)
	}
	return b
}

// in returns how it is appended in a version of the wire.
func (m *ballot) in(version uint8) func(b []byte) []byte {
	return func(b []byte) []byte { return election.AppendMsg(appendText(b, m.VIP), version, m.Msg) }
}

func (r *request) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, r.ID)
	return append(appendText(appendText(b, r.VIP), string(r.To)), flag(r.Chosen))
}

func (n *note) append(b []byte) []byte {
	return appendText(appendText(b, n.VIP), n.Text)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// ErrFrame is what decoding a frame fails with.
var ErrFrame = errors.New("frame")

// errVersion is that of a frame of a version that is not spoken here.
var errVersion = fmt.Errorf("%w: of another version", ErrFrame)

// records calls take for each record of a frame, in order. One that take does not understand
// may be of a later release: it does not spoil the others, and the first error is returned
// after them.
func records(b []byte, versions wire.Range, take func(kind recordKind, body *reader) error) error {
	if len(b) == 0 || !versions.Knows(b[0]) {
		return errVersion
	}
	var first error
	for b = b[1:]; len(b) > 0; {
		if len(b) < 3 {
			return fmt.Errorf("%w: cut short", ErrFrame)
		}
		n := int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < 3+n {
			return fmt.Errorf("%w: cut short", ErrFrame)
		}
		r := reader{b: b[3 : 3+n], wire: versions}
		if err := take(recordKind(b[0]), &r); err != nil && first == nil {
			first = err
		}
		b = b[3+n:]
	}
	return first
}

// reader takes a body apart. After the first thing that is not there all are zero and
// err says so.
type reader struct {
	b    []byte
	wire wire.Range // versions that are read
	err  error
}

func (r *reader) fail() {
	r.b, r.err = nil, fmt.Errorf("%w: record cut short", ErrFrame)
}

func (r *reader) byte() byte {
	if len(r.b) < 1 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string {
	n := int(r.byte())
	if len(r.b) < n {
		r.fail()
		return ""
	}
	v := string(r.b[:n])
	r.b = r.b[n:]
	return v
}

// duration reads one that is not negative.
func (r *reader) duration() time.Duration {
	return max(time.Duration(r.uvarint()), 0)
}

func (h *hello) read(r *reader) error {
	*h = hello{Seq: r.uvarint(), State: State(r.byte()), Uptime: r.duration(),
		Name: r.text(), Version: r.text(), Config: r.text(), Voters: r.uint64(), Reason: r.text()}
	flags := r.byte()
	h.Witness, h.Last = flags&1 != 0, flags&2 != 0
	if r.err == nil && h.State > Unfit {
		return fmt.Errorf("%w: state %d", ErrFrame, h.State)
	}
	return r.err
}

func (t *tenure) read(r *reader) error {
	*t = tenure{Seq: r.uvarint(), VIP: r.text(), Holds: r.byte()&1 != 0, Term: r.uvarint(), Held: r.duration(),
		Reason: election.Reason(r.text()), From: r.text(), Text: r.text(), Chosen: r.byte()&1 != 0}
	if r.err == nil && len(r.b) > 0 {
		t.Fault = r.text()
	}
	return r.err
}

func (m *ballot) read(r *reader) error {
	m.VIP = r.text()
	if r.err != nil {
		return r.err
	}
	var err error
	m.Msg, err = election.ParseMsg(r.b, r.wire)
	return err
}

func (q *request) read(r *reader) error {
	*q = request{ID: r.uint64(), VIP: r.text(), To: election.ID(r.text()), Chosen: r.byte()&1 != 0}
	return r.err
}

func (n *note) read(r *reader) error {
	*n = note{VIP: r.text(), Text: r.text()}
	return r.err
}
