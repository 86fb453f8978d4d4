package election

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/wire"
)

// A message on the wire, in order; numbers are big-endian:
//
//	1 byte   version
//	1 byte   kind
//	1 byte   reason
//	1 byte   flags: holds, quiet, deaf, hears of Info, and chosen, from the lowest bit up
//	1 byte   Info.Prefer
//	1 byte   Info.Ill
//	8 bytes  term
//	8 bytes  sent, ns
//	8 bytes  Info.Held, ns
//	1 byte   length of To, then To
//
// What a later release adds comes behind To, or as a further flag or reason: it is skipped.
const (
	wireHeadSize = 6 + 3*8 + 1
)

// MaxMsgSize is the most bytes that AppendMsg ever appends.
const MaxMsgSize = wireHeadSize + 255

const (
	flagHolds = 1 << iota
	flagQuiet
	flagDeaf
	flagHears
	flagChosen
)

// wireReasons is in the order of their numbers on the wire: append only.
var wireReasons = [...]Reason{"", NodeDead, CheckFailed, Planned, Preempt, Conflict, Start, Isolated}

// readReason returns the reason with a number. One of a later release is a reason why a
// holder let go all the same: it lives and said so, which is most like a plan.
func readReason(n byte) Reason {
	if int(n) >= len(wireReasons) {
		return Planned
	}
	return wireReasons[n]
}

// ErrMsg is what ParseMsg wraps for bytes that are no message of this version.
var ErrMsg = errors.New("election message")

// AppendMsg appends msg to b, in a version of the wire. A To of more than 255 bytes is cut, and a reason that is
// none of ours is left out; no machine makes either.
func AppendMsg(b []byte, version uint8, msg Msg) []byte {
	var flags byte
	for i, set := range []bool{msg.Info.Holds, msg.Info.Quiet, msg.Info.Deaf, msg.Info.Hears, msg.Chosen} {
		if set {
			flags |= 1 << i
		}
	}
	var reason byte
	for i, r := range wireReasons {
		if r == msg.Reason {
			reason = byte(i)
		}
	}
	to := msg.To[:min(len(msg.To), 255)]
	b = append(b, version, byte(msg.Kind), reason, flags, msg.Info.Prefer, byte(msg.Info.Ill))
	b = binary.BigEndian.AppendUint64(b, msg.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(msg.Sent))
	b = binary.BigEndian.AppendUint64(b, uint64(msg.Info.Held))
	b = append(b, byte(len(to)))
	return append(b, to...)
}

// ParseMsg reads the message that b begins with, of one of the versions. It keeps no
// reference to b.
func ParseMsg(b []byte, versions wire.Range) (Msg, error) {
	switch {
	case len(b) == 0:
		return Msg{}, fmt.Errorf("%w: empty", ErrMsg)
	case !versions.Knows(b[0]):
		return Msg{}, fmt.Errorf("%w: version %d, want %v", ErrMsg, b[0], versions)
	case len(b) < wireHeadSize:
		return Msg{}, fmt.Errorf("%w: %d bytes, want at least %d", ErrMsg, len(b), wireHeadSize)
	case b[1] > byte(Waive):
		return Msg{}, fmt.Errorf("%w: unknown kind %d", ErrMsg, b[1])
	case len(b) < wireHeadSize+int(b[wireHeadSize-1]):
		return Msg{}, fmt.Errorf("%w: %d bytes, want %d", ErrMsg, len(b), wireHeadSize+int(b[wireHeadSize-1]))
	}
	flags := b[3]
	msg := Msg{
		Kind:   Kind(b[1]),
		Reason: readReason(b[2]),
		Term:   binary.BigEndian.Uint64(b[6:]),
		Sent:   clock.Instant(binary.BigEndian.Uint64(b[14:])),
		To:     ID(b[wireHeadSize : wireHeadSize+int(b[wireHeadSize-1])]),
		Chosen: flags&flagChosen != 0,
		Info: Info{
			Holds:  flags&flagHolds != 0,
			Quiet:  flags&flagQuiet != 0,
			Deaf:   flags&flagDeaf != 0,
			Hears:  flags&flagHears != 0,
			Held:   time.Duration(binary.BigEndian.Uint64(b[22:])),
			Prefer: b[4],
			Ill:    Ill(b[5]),
		},
	}
	if msg.Term >= 1<<63 { // leaves room above it for ever
		return Msg{}, fmt.Errorf("%w: term %d out of range", ErrMsg, msg.Term)
	}
	if msg.Sent < 0 || msg.Info.Held < 0 {
		return Msg{}, fmt.Errorf("%w: negative time", ErrMsg)
	}
	return msg, nil
}
