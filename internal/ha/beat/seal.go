// Package beat is the mesh between the nodes: heartbeat datagrams over UDP, the same
// datagrams over any further Carrier, and lifelines, TCP connections that are kept for
// their end.
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
)

// wireVersion is the first byte of everything that a node sends to another.
const wireVersion = 1

// A datagram is
//
//	version 1 | sender 1 | epoch 8 | sequence 8 | AES-256-GCM of (echo 8 | payload)
//
// with the part before it authenticated too. sender is the place in the sorted list of
// voters. epoch is random for each life of a process, and every life has a key of its
// own, so that the sequence alone makes a nonce unique. echo is the epoch of the
// receiver as the sender knows it: it proves that the datagram was made after the
// receiver's start, so that nothing recorded before it can be played again.
const (
	headSize    = 1 + 1 + 8 + 8
	tagSize     = 16
	overhead    = headSize + 8 + tagSize
	maxDatagram = 8 << 10
)

// What a received datagram was dropped for; the values are labels of a metric.
var (
	errJunk     = errors.New("junk")     // not of this format
	errVersion  = errors.New("version")  // of a later format
	errStranger = errors.New("stranger") // sender or key unknown
	errReplay   = errors.New("replay")   // seen before, or of an earlier life
	errEarly    = errors.New("early")    // made before the sender knew this life of ours
)

// keys derives what is needed from the cluster's secret.
type keys struct {
	secret  []byte
	cluster string
}

// derive returns a 32-byte key for one purpose (RFC 5869).
func (k keys) derive(purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, k.secret, []byte("proxyd "+k.cluster), purpose, 32)
}

// life returns the cipher of one life of one sender.
func (k keys) life(sender election.ID, epoch uint64) (cipher.AEAD, error) {
	key, err := k.derive(fmt.Sprintf("beat %s %016x", sender, epoch))
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
	sender uint8
	epoch  uint64
	seq    uint64
}

func parseHead(b []byte) (head, error) {
	if len(b) == 0 {
		return head{}, errJunk
	}
	if b[0] != wireVersion {
		return head{}, errVersion
	}
	if len(b) < overhead || len(b) > maxDatagram {
		return head{}, errJunk
	}
	return head{b[1], binary.BigEndian.Uint64(b[2:]), binary.BigEndian.Uint64(b[10:])}, nil
}

// seal appends a datagram to dst[:0].
func seal(dst []byte, c cipher.AEAD, h head, echo uint64, payload []byte) []byte {
	dst = append(dst[:0], wireVersion, h.sender)
	dst = binary.BigEndian.AppendUint64(dst, h.epoch)
	dst = binary.BigEndian.AppendUint64(dst, h.seq)
	from := len(dst)
	dst = binary.BigEndian.AppendUint64(dst, echo)
	dst = append(dst, payload...)
	var nonce [12]byte
	binary.BigEndian.PutUint64(nonce[4:], h.seq)
	return c.Seal(dst[:from], nonce[:], dst[from:], dst[:headSize])
}

// open checks and decrypts b in place.
func open(b []byte, c cipher.AEAD, h head) (echo uint64, payload []byte, err error) {
	var nonce [12]byte
	binary.BigEndian.PutUint64(nonce[4:], h.seq)
	plain, err := c.Open(b[headSize:headSize], nonce[:], b[headSize:], b[:headSize])
	if err != nil || len(plain) < 8 {
		return 0, nil, errStranger
	}
	return binary.BigEndian.Uint64(plain), plain[8:], nil
}
