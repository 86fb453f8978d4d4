// Package beat is the mesh between the nodes: heartbeat datagrams over UDP on one or more
// paths, the same datagrams over any further Carrier, and lifelines, TCP connections that
// are kept for their end.
package beat

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

// A datagram is
//
//	version 1 | newest 1 | sender 1 | receiver 1 | epoch 8 | sequence 8 |
//	AES-256-GCM of (challenge 8 | echo 8 | stood 1 | flags 1 | payload)
//
// with the part before it authenticated too. sender and receiver are marks of the voters'
// names. newest is the newest version of the wire that the sender speaks; it and version are
// at their places in every version, so that one who cannot read the rest can say why. epoch
// is random for each life of a process, and every life has a key of
// its own for each receiver, so that the sequence alone makes a nonce unique and nothing
// sent to one voter can be played to another. challenge is a random number that the
// sender wants back, echo the one that it last had from the receiver: it proves that the
// datagram of a life not known yet was made after the receiver asked. stood is for how
// many beats the sender's election loop has stood still.
const (
	headSize    = 1 + 1 + 1 + 1 + 8 + 8
	nonceSize   = 12 // the end of the head: the epoch's lower half and the sequence
	tagSize     = 16
	proofSize   = 8 + 8 + 1 + 1
	overhead    = headSize + proofSize + tagSize
	maxDatagram = 8 << 10
)

// smooth is the flag that says that the receiver was heard directly, without a gap, for a
// while: it need not use its other carriers for all that it says.
const smooth = 1

// What a received datagram was dropped for; the values are labels of a metric.
var (
	errJunk     = errors.New("junk")     // not of this format
	errVersion  = errors.New("version")  // of one that is not spoken here
	errStranger = errors.New("stranger") // sender or key unknown
	errOthers   = errors.New("others")   // for another voter; a path is sought by telling everyone
	errFull     = errors.New("full")     // nobody takes the events
	errReplay   = errors.New("replay")   // seen before, or of an earlier life
	errEarly    = errors.New("early")    // of a life that has not yet answered our challenge
)

// keys derives what is needed from one secret of the cluster.
type keys struct {
	secret  []byte
	cluster string
}

// derive returns a 32-byte key for one purpose (RFC 5869).
func (k keys) derive(purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, k.secret, []byte("proxyd "+k.cluster), purpose, 32)
}

// life returns the cipher of what one life of a sender sends to a receiver.
func (k keys) life(from, to election.ID, epoch uint64) (cipher.AEAD, error) {
	key, err := k.derive(fmt.Sprintf("beat %s %s %016x", from, to, epoch))
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// head is the clear part of a datagram.
type head struct {
	version, newest  uint8
	sender, receiver uint8
	epoch            uint64
	seq              uint64
}

// parseHead reads a head. Of a version that is not among those given it reads no more than
// which one it is.
func parseHead(b []byte, versions wire.Range) (head, error) {
	if len(b) < 2 {
		return head{}, errJunk
	}
	h := head{version: b[0], newest: b[1]}
	if !versions.Knows(h.version) {
		return h, errVersion
	}
	if len(b) < overhead || len(b) > maxDatagram {
		return head{}, errJunk
	}
	h.sender, h.receiver = b[2], b[3]
	h.epoch, h.seq = binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint64(b[12:])
	return h, nil
}

// proof is what a datagram says of its sender: that it is of now, and how that one fares.
type proof struct {
	challenge, echo uint64
	stood           uint8
	flags           uint8
}

// seal appends a datagram to dst[:0].
func seal(dst []byte, c cipher.AEAD, h head, p proof, payload []byte) []byte {
	dst = append(dst[:0], h.version, h.newest, h.sender, h.receiver)
	dst = binary.BigEndian.AppendUint64(dst, h.epoch)
	dst = binary.BigEndian.AppendUint64(dst, h.seq)
	from := len(dst)
	dst = binary.BigEndian.AppendUint64(dst, p.challenge)
	dst = binary.BigEndian.AppendUint64(dst, p.echo)
	dst = append(dst, p.stood, p.flags)
	dst = append(dst, payload...)
	return c.Seal(dst[:from], dst[headSize-nonceSize:headSize], dst[from:], dst[:headSize])
}

// open checks b, of which parseHead has read the head, and decrypts it into room, so that
// another key can be tried.
func open(room, b []byte, c cipher.AEAD) (p proof, payload []byte, err error) {
	plain, err := c.Open(room[:0], b[headSize-nonceSize:headSize], b[headSize:], b[:headSize])
	if err != nil || len(plain) < proofSize {
		return proof{}, nil, errStranger
	}
	p = proof{binary.BigEndian.Uint64(plain), binary.BigEndian.Uint64(plain[8:]), plain[16], plain[17]}
	return p, plain[proofSize:], nil
}
