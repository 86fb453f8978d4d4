package engine

import (
	"bytes"
	"testing"
	"time"

	nethttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/http2"
)

// A bareHost makes streams that have a connection and a desk, and nothing else.
type bareHost struct {
	h       *h2conn
	streams map[uint32]*h2stream
}

func (b *bareHost) Open(id uint32) *http2.Stream {
	s := &h2stream{conn: b.h}
	s.desk = &desk{}
	s.desk.pace = pace{rate: 512, window: 10 * time.Second}
	s.flow.Begin(id)
	s.flow.Decoder.Begin(&s.desk.x.Request, nil, http1.Limits{HeaderBytes: 1 << 10, URIBytes: 100, Fields: 10})
	b.streams[id] = s
	return &s.flow
}
func (*bareHost) Request(*http2.Stream, error) {}
func (*bareHost) Drop(*http2.Stream, error)    {}
func (*bareHost) Wake(*http2.Stream)           {}
func (*bareHost) Widened()                     {}
func (*bareHost) Glitch(dataplane.Glitch)      {}

// The window of a connection is all streams' own. A client that opens it often enough for one
// is not slow towards those that got nothing of it; one that holds it shut is.
func TestE1AStarvedConnectionIsJudgedAsOneClient(t *testing.T) {
	b := &bareHost{h: &h2conn{}, streams: map[uint32]*h2stream{}}
	b.h.state = http2.New(http2.Config{Streams: 10, Window: 1 << 16, ConnWindow: 1 << 16, Unsent: 1 << 20, Limits: http1.Limits{HeaderBytes: 1 << 10, Fields: 10}}, b, 0)
	var said, block bytes.Buffer
	said.WriteString(http2.Preface)
	fr := nethttp2.NewFramer(&said, nil)
	fr.WriteSettings()
	e := hpack.NewEncoder(&block)
	for _, id := range []uint32{1, 3, 5} {
		block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}} {
			e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		fr.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	}
	feed := func() {
		t.Helper()
		if _, fault := b.h.state.Feed(said.Bytes(), 0); fault != nil {
			t.Fatal(fault)
		}
		said.Reset()
	}
	feed()
	one, two, shut := b.streams[1], b.streams[3], b.streams[5]
	send := func(s *h2stream, n int) {
		t.Helper()
		if taken, _ := b.h.state.Data(&s.flow, make([]byte, n), nil, false, false); taken != n {
			t.Fatalf("%d of %d bytes are taken", taken, n)
		}
	}
	send(shut, 40_000)
	send(one, 25_535) // all of the connection's window
	two.moved = b.h.state.Moved()
	if two.crowded() {
		t.Error("a client that takes nothing is excused")
	}
	fr.WriteWindowUpdate(0, 5120) // the least of 10 seconds
	feed()
	if !two.crowded() {
		t.Error("a stream that may send, and whose turn has not come, is not excused")
	}
	send(one, 5120)
	if !two.crowded() {
		t.Error("a stream that got nothing of what its client takes is not excused")
	}
	if two.crowded() {
		t.Error("what was taken once is an excuse for ever")
	}
	fr.WriteWindowUpdate(0, 5119)
	feed()
	send(one, 5119)
	if two.crowded() {
		t.Error("less than a client has to take is an excuse")
	}
	fr.WriteSettings(nethttp2.Setting{ID: nethttp2.SettingInitialWindowSize, Val: 0})
	fr.WriteWindowUpdate(0, 100_000)
	feed()
	if shut.crowded() {
		t.Error("a stream whose own window is shut is excused")
	}
}
