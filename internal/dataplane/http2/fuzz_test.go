package http2

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/dataplane"
)

// seeds are frames of a peer, as good as they come and not so good.
func seeds(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	head := func(fields ...string) []byte {
		block.Reset()
		for i := 0; i < len(fields); i += 2 {
			e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return block.Bytes()
	}
	for _, write := range []func(){
		func() {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "200"), EndHeaders: true})
			fr.WriteData(1, false, make([]byte, 100))
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head("grpc-status", "0"), EndHeaders: true, EndStream: true})
		},
		func() {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"), EndHeaders: true})
			fr.WriteDataPadded(1, true, make([]byte, 100), make([]byte, 9))
		},
		func() {
			fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
			fr.WriteWindowUpdate(0, 1000)
			fr.WriteWindowUpdate(1, 1000)
			fr.WriteRSTStream(3, http2.ErrCodeRefusedStream)
			fr.WriteGoAway(1, http2.ErrCodeNo, nil)
			fr.WritePing(true, alive)
		},
		func() {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: head(":status", "103")})
			fr.WriteContinuation(3, true, head("link", "</a>"))
		},
	} {
		b.Reset()
		write()
		f.Add(b.Bytes(), byte(7), byte(50))
	}
}

// Whatever a server sends, in whatever pieces, and whatever is asked meanwhile: no panic, what
// is kept and what is to be sent are bounded, and streams end with their connection.
func FuzzClient(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, said []byte, pieces, bytes byte) {
		p := greeted(t, 3)
		now := time.Duration(0)
		buf := make([]byte, 1<<10)
		for have := 0; have < len(said); {
			end := min(len(said), have+int(pieces)+1+frameHead)
			used, err := p.c.Feed(said[have:end], now)
			if used > end-have || used < 0 {
				t.Fatalf("%d of %d bytes used", used, end-have)
			}
			if have += used; used == 0 {
				if err != nil || end == len(said) {
					break
				}
				pieces += 100
				if pieces < 100 { // a frame that is longer than all pieces
					used, _ = p.c.Feed(said[have:], now)
					if have += used; used == 0 {
						break
					}
				}
			}
			now += time.Millisecond
			for id, s := range p.calls {
				_, _ = s.Head()
				_, _ = p.c.Read(s, buf)
				_, _ = p.c.Data(s, make([]byte, int(bytes)*100), id == 3)
				if id == 5 {
					_ = p.c.EndWith(s, []byte("a: b\r\n"))
				}
				if s.body.len() > clientWindow {
					t.Fatalf("%d bytes of an answer wait", s.body.len())
				}
			}
			if n := p.c.Unsent(); n > 64<<10+100*len(said)+1000 {
				t.Fatalf("%d bytes are to be sent", n)
			}
			p.c.Take(nil)
		}
		open := p.c.Open()
		p.c.End(dataplane.ErrServerDown)
		for id, s := range p.calls {
			if _, err := p.c.Read(s, buf); !s.closed && err == nil && s.body.len() == 0 && !s.ended {
				if _, err := p.c.Read(s, buf); err == nil {
					t.Fatalf("stream %d goes on without a connection", id)
				}
			}
			p.c.Done(s)
		}
		if p.c.Open() != 0 || !p.c.Over() {
			t.Fatalf("%d streams are left of %d", p.c.Open(), open)
		}
	})
}

// The same of what a client sends.
func FuzzConn(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, said []byte, reads, bytes byte) {
		p := newPair(t, nil)
		p.c.Take(nil)
		for at := 0; at < len(said); {
			used, fault := p.c.Feed(said[at:], p.now)
			if used < 0 || used > len(said)-at {
				t.Fatalf("%d of %d bytes used", used, len(said)-at)
			}
			at += used
			buf := make([]byte, int(reads)+1)
			for id := range p.requests {
				s := p.streams[id]
				_, _ = p.c.Read(s, buf)
				p.c.Head(s, &dataplane.Response{Status: 200, Length: -1}, nil, false)
				p.c.Data(s, make([]byte, int(bytes)*100), nil, id%4 == 1, false)
				p.c.Data(s, nil, nil, true, false)
				if s.body.len() > 64<<10 {
					t.Fatalf("%d bytes of a body wait", s.body.len())
				}
			}
			p.c.Take(nil)
			if used == 0 || fault != nil {
				break
			}
			p.now += time.Millisecond
		}
		p.c.End(dataplane.ErrClientGone)
		for id, s := range p.streams {
			if p.requests[id] != nil && !s.over {
				p.c.Done(s)
			}
		}
		if p.c.Fault() == nil && p.c.Running() > 1 { // of which one may be a head that is not complete
			t.Fatalf("%d exchanges run", p.c.Running())
		}
	})
}
