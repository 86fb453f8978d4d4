package gossip

import (
	"errors"
	"net"
)

// What memberlist sends is behind a head that its cipher does not cover: the label of the
// cluster, for streams the length, and a byte that says how it is sealed. That byte decides
// what is done with a sealed message after it was opened, and memberlist falls over one that
// was recorded and bears another. So what comes in is looked at before it: only the one way of
// sealing that memberlist of today uses passes, and the label of this cluster.
const (
	labelMark  = 244 // memberlist's hasLabelMsg
	streamMark = 10  // its encryptMsg
	sealedBy   = 1   // its encryption version: AES-GCM without padding

	streamLength = 4
)

var errHead = errors.New("failed to receive: the head of a message is not as memberlist writes it")

// labelHead is what begins everything of a cluster with a name.
func labelHead(cluster string) []byte {
	if cluster == "" {
		return nil
	}
	return append([]byte{labelMark, byte(len(cluster))}, cluster...)
}

// sealedPacket reports whether a packet may be given to memberlist.
func sealedPacket(b []byte, cluster string) bool {
	head := labelHead(cluster)
	return len(b) > len(head) && string(b[:len(head)]) == string(head) && b[len(head)] == sealedBy
}

// A guarded connection reads no further than a head that is not as it must be.
type guarded struct {
	net.Conn
	head   []byte // that must come; the byte of each place in any is not looked at
	any    map[int]bool
	read   int
	refuse func() // is told of one that was refused
}

// guard makes c one that another node dialled, or, if dialled, one of ours: its answers
// come without a label.
func guard(c net.Conn, cluster string, dialled bool, refuse func()) *guarded {
	g := &guarded{Conn: c, any: map[int]bool{}, refuse: refuse}
	if !dialled {
		g.head = labelHead(cluster)
	}
	g.head = append(g.head, streamMark)
	for range streamLength {
		g.any[len(g.head)] = true
		g.head = append(g.head, 0)
	}
	g.head = append(g.head, sealedBy)
	return g
}

func (g *guarded) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	for i := 0; i < n && g.read < len(g.head); i++ {
		if !g.any[g.read] && b[i] != g.head[g.read] {
			g.refuse()
			return 0, errHead
		}
		g.read++
	}
	return n, err
}
