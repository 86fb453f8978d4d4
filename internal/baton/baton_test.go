package baton

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func pair(t *testing.T) (near, far *Line) {
	t.Helper()
	near, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	far, err = lineOf(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func TestAListenerGoesOverWithWhoWaitsAtIt(t *testing.T) {
	near, far := pair(t)
	old, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("tcp", old.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	f, err := Copy("web", old.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	if err := near.Send(time.Second, "sockets", map[string]int{"n": 1}, f); err != nil {
		t.Fatal(err)
	}
	f.File.Close()
	old.Close()

	m, err := far.Receive(time.Second)
	if err != nil || m.Kind != "sockets" || string(m.Body) != `{"n":1}` {
		t.Fatalf("Receive = %+v, %v", m, err)
	}
	l := NewLegacy(m.Files)
	if _, ok, err := l.Listener("other"); ok || err != nil {
		t.Errorf("a listener that was not sent is there: %v, %v", ok, err)
	}
	heir, ok, err := l.Listener("web")
	if !ok || err != nil {
		t.Fatalf("Listener = %v, %v", ok, err)
	}
	defer heir.Close()
	c, err := heir.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if left := l.Close(); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestManyFilesAndLongTexts(t *testing.T) {
	near, far := pair(t)
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var files []File
	for i := range 2*maxFiles + 5 {
		f, err := Copy(fmt.Sprint(i), u)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	defer CloseFiles(files)
	long := make([]byte, 3<<20)
	sent := make(chan error, 1)
	go func() { sent <- near.Send(10*time.Second, "all", long, files...) }()
	m, err := far.Receive(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	var text []byte
	if err := json.Unmarshal(m.Body, &text); err != nil || len(text) != len(long) || len(m.Files) != len(files) {
		t.Errorf("%d files and %d bytes came, %v; want %d and %d", len(m.Files), len(text), err, len(files), len(long))
	}
	l := NewLegacy(m.Files)
	c, ok, err := l.UDP("7")
	if !ok || err != nil {
		t.Fatalf("UDP = %v, %v", ok, err)
	}
	c.Close()
	if left := l.Close(); len(left) != len(files)-1 {
		t.Errorf("%d are left over, want %d", len(left), len(files)-1)
	}
}

func TestTheEndAndSilenceAreTold(t *testing.T) {
	near, far := pair(t)
	if _, err := far.Receive(time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
	if pid, uid, err := far.Peer(); err != nil || pid != os.Getpid() || uid != os.Getuid() {
		t.Errorf("Peer = %d, %d, %v", pid, uid, err)
	}
	near.Close()
	if _, err := far.Receive(time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	good, _ := json.Marshal(envelope{Kind: "hello", Body: json.RawMessage(`{"a":1}`)})
	f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(good))), good...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		near, file, err := Pair()
		if err != nil {
			t.Skip(err)
		}
		far, err := lineOf(file)
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		if len(b) > 64<<10 { // the socket's buffer
			b = b[:64<<10]
		}
		_, _ = near.conn.Write(b)
		near.Close()
		for {
			m, err := far.Receive(time.Second)
			if err != nil {
				return
			}
			CloseFiles(m.Files)
		}
	})
}
