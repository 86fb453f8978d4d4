package gossip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"proxyd/internal/ha/election"
)

// seal seals a message as memberlist does, for a packet or a stream. how is the byte that
// says by which of its ways; it is not covered by the cipher.
func seal(t *testing.T, key []byte, cluster string, stream bool, how byte, msg []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, 12)
	var head []byte
	if stream {
		head = binary.BigEndian.AppendUint32([]byte{streamMark}, uint32(1+len(nonce)+len(msg)+gcm.Overhead()))
	}
	body := append([]byte{how}, nonce...)
	body = gcm.Seal(body, nonce, msg, append(bytes.Clone(head), cluster...))
	return append(append(labelHead(cluster), head...), body...)
}

// A recording whose one byte was changed that no cipher covers must not end the process.
func TestForgedWayOfSealingIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.9.%d.77:0", byte(os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	self := l.Addr().String()
	l.Close()
	came := make(chan []byte, 4)
	c := Config{Cluster: "edge", Secrets: []string{"a secret of the cluster"}, Self: election.ID(self), Voters: []election.ID{election.ID(self)},
		Log: slog.New(slog.DiscardHandler), Receive: func(b []byte) { came <- bytes.Clone(b) }}
	g, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	keys, err := c.keys(c.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	packet := append([]byte{8}, "a datagram that ends in a byte larger than itself \xff"...) // 8: memberlist's userMsg
	udp, err := net.Dial("udp", self)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_ = udp.SetDeadline(time.Now().Add(10 * time.Second))
	stream := func(b []byte) {
		t.Helper()
		s, err := net.Dial("tcp", self)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_ = s.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = s.Write(b)
		_, _ = io.Copy(io.Discard, s) // until it hangs up
	}
	for i, how := range []byte{0, 2, 0} {
		_, _ = udp.Write(seal(t, keys[0], c.Cluster, false, how, packet))
		stream(seal(t, keys[0], c.Cluster, true, how, packet))
		stream(seal(t, keys[0], "other", true, sealedBy, packet))
		for began := time.Now(); g.Refused() < uint64(3*(i+1)); {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("%d refused, want %d", g.Refused(), 3*(i+1))
			}
			_, _ = udp.Write(nil) // paces the loop: the kernel drops it, or it is refused too
		}
	}
	_, _ = udp.Write(seal(t, keys[0], c.Cluster, false, sealedBy, packet))
	select {
	case b := <-came:
		if !bytes.Equal(b, packet[1:]) {
			t.Errorf("received %q", b)
		}
	case <-time.After(10 * time.Second):
		t.Error("what is sealed as it must be is not received")
	}
}

// FuzzHead: whatever comes, by packet or by stream, passes whole or is refused.
func FuzzHead(f *testing.F) {
	f.Add([]byte{244, 4, 'e', 'd', 'g', 'e', 10, 0, 0, 0, 1, 1})
	f.Add([]byte{244, 4, 'e', 'd', 'g', 'e', 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if sealedPacket(b, "edge") && b[6] != sealedBy {
			t.Errorf("%x passes", b)
		}
		here, there := net.Pipe()
		defer here.Close()
		go func() { // ends with the pipe
			_, _ = there.Write(b)
			there.Close()
		}()
		refused := false
		got, _ := io.ReadAll(guard(here, "edge", false, func() { refused = true }))
		if !refused && !bytes.Equal(got, b) {
			t.Errorf("%x came as %x", b, got)
		}
		if !refused && len(b) > 11 && b[11] != sealedBy {
			t.Errorf("%x passes", b)
		}
	})
}
