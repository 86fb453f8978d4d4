package engine

import (
	"crypto/rand"

	"github.com/quic-go/quic-go"
)

// An idMaker makes connection ids that say which node they are of, in clear (as the
// plaintext algorithm of QUIC-LB, draft-ietf-quic-load-balancers): while this node drains an
// address, its new holder sends the datagrams of our connections on to us by it.
//
//	length 1 | cluster 2 | node 3 | tag 2 | random 4
//
// The tag is of the endpoint: by it two processes of a node tell their connections apart
// (steer_linux.go).
type idMaker struct {
	mark [tagAt]byte
	tag  [2]byte
}

const (
	idBytes = 12
	tagAt   = 6
)

// IDMark is how the ids of a node begin: the first byte says, as QUIC-LB has it, that the
// configuration is number 0 and how many bytes follow.
func IDMark(cluster [2]byte, node [3]byte) (mark [6]byte) {
	mark[0] = idBytes - 1
	copy(mark[1:], cluster[:])
	copy(mark[3:], node[:])
	return mark
}

func (m idMaker) GenerateConnectionID() (quic.ConnectionID, error) {
	var b [idBytes]byte
	copy(b[:], m.mark[:])
	copy(b[tagAt:], m.tag[:])
	rand.Read(b[tagAt+2:]) // never fails
	return quic.ConnectionIDFromBytes(b[:]), nil
}

func (m idMaker) ConnectionIDLen() int { return idBytes }
