package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A pair is a connection and its client, without a network. It is the Host, too.
type pair struct {
	t       testing.TB
	c       *Conn
	now     time.Duration
	said    bytes.Buffer // by the client, not fed yet
	client  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer

	requests map[uint32]*dataplane.Request
	streams  map[uint32]*Stream
	refused  map[uint32]error
	dropped  []error
	glitches [dataplane.Glitches]int
	woken    int
}

var testLimits = http1.Limits{HeaderBytes: 32 << 10, URIBytes: 8 << 10, Fields: 100}

func newPair(t testing.TB, set func(*Config)) *pair {
	p := &pair{t: t, requests: map[uint32]*dataplane.Request{}, streams: map[uint32]*Stream{}, refused: map[uint32]error{}}
	conf := Config{Streams: 100, Requests: 10_000, Window: 64 << 10, ConnWindow: 256 << 10, Unsent: 64 << 10, Limits: testLimits, MayUpgrade: true}
	if set != nil {
		set(&conf)
	}
	p.c = New(conf, p, 0)
	p.client = http2.NewFramer(&p.said, nil)
	p.client.AllowIllegalWrites = true
	p.encoder = hpack.NewEncoder(&p.block)
	p.said.WriteString(Preface)
	p.client.WriteSettings()
	p.feed()
	return p
}

// feed has the connection take in what the client said.
func (p *pair) feed() *Fault {
	used, fault := p.c.Feed(p.said.Bytes(), p.now)
	p.said.Next(used)
	return fault
}

// A client that has sent many requests, or small parts of bodies, gets a turn's worth of work from
// each Feed; large parts are no more work than their bytes.
func TestD4ATurnEndsBehindAFewStreams(t *testing.T) {
	p := newPair(t, func(c *Config) { c.Turn = 2 })
	for id := uint32(1); id <= 9; id += 2 {
		p.ask(id, id < 9)
	}
	p.client.WriteData(9, false, []byte("x"))
	p.client.WriteData(9, false, make([]byte, 4096))
	p.client.WriteData(9, true, []byte("y"))
	for turn, want := range []int{2, 4, 5, 5} {
		if fault := p.feed(); fault != nil {
			t.Fatal(fault)
		}
		if len(p.refused) != want || p.c.Tired() != (turn < 3) {
			t.Errorf("after turn %d there are %d requests, tired is %v, want %d", turn+1, len(p.refused), p.c.Tired(), want)
		}
	}
	if p.said.Len() > 0 || !p.streams[9].ended {
		t.Errorf("%d bytes are left, and the last body's end is seen: %v", p.said.Len(), p.streams[9].ended)
	}
}

func (p *pair) Open(id uint32) *Stream {
	s := &Stream{}
	s.Begin(id)
	q := &dataplane.Request{}
	s.Decoder.Begin(q, nil, testLimits)
	p.streams[id], p.requests[id] = s, q
	return s
}
func (p *pair) Request(s *Stream, err error) { p.refused[s.ID] = err }
func (p *pair) Drop(s *Stream, err error) {
	delete(p.requests, s.ID)
	p.dropped = append(p.dropped, err)
}
func (p *pair) Wake(*Stream)              {}
func (p *pair) Widened()                  { p.woken++ }
func (p *pair) Glitch(k dataplane.Glitch) { p.glitches[k]++ }

// ask begins a request of GET / with more fields, as "name: value".
func (p *pair) ask(id uint32, ends bool, more ...string) {
	p.headers(id, ends, append([]string{":method: GET", ":scheme: http", ":authority: a.example", ":path: /"}, more...)...)
}

func (p *pair) headers(id uint32, ends bool, fields ...string) {
	p.client.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields...), EndStream: ends, EndHeaders: true})
}

func (p *pair) encode(fields ...string) []byte {
	p.block.Reset()
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		p.encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	return p.block.Bytes()
}

// sent returns the frames that the client gets, in words.
func (p *pair) sent() (words []string) {
	fr := http2.NewFramer(nil, bytes.NewReader(p.c.Take(nil)))
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.t.Fatal(err)
			}
			return words
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			words = append(words, fmt.Sprintf("RST %d %v", f.StreamID, f.ErrCode))
		case *http2.GoAwayFrame:
			words = append(words, fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode))
		default:
			words = append(words, fmt.Sprintf("%v %d", f.Header().Type, f.Header().StreamID))
		}
	}
}

func has(words []string, want string) bool {
	for _, w := range words {
		if w == want {
			return true
		}
	}
	return false
}

// flooded fails the test unless the connection ends with ENHANCE_YOUR_CALM within most
// repetitions of do.
func (p *pair) flooded(most int, do func(i int)) {
	p.t.Helper()
	for i := range most {
		do(i)
		if fault := p.feed(); fault != nil {
			if !fault.Flood || fault.Code != http2.ErrCodeEnhanceYourCalm {
				p.t.Fatalf("after %d: %v", i, fault)
			}
			return
		}
		p.c.Take(nil)
	}
	p.t.Fatalf("still served after %d", most)
}

func TestARequestIsDecoded(t *testing.T) {
	p := newPair(t, nil)
	p.headers(1, true, ":method: GET", ":scheme: https", ":authority: A.Example:8443", ":path: /a/./b?q=1", "cookie: a=1", "accept: */*", "cookie: b=2")
	if fault := p.feed(); fault != nil {
		t.Fatal(fault)
	}
	q := p.requests[1]
	if q == nil || p.refused[1] != nil {
		t.Fatalf("request %v, %v", q, p.refused[1])
	}
	if string(q.Host) != "a.example" || string(q.Port) != "8443" || string(q.Path) != "/a/b" || string(q.Query) != "q=1" {
		t.Errorf("host %s port %s path %s query %s", q.Host, q.Port, q.Path, q.Query)
	}
	if got := string(q.Header.Get(dataplane.Cookie)); got != "a=1; b=2" {
		t.Errorf("cookie %q, want its crumbs joined", got)
	}
	if q.Header[0].ID != dataplane.Host || string(q.Header[0].Value) != "A.Example:8443" {
		t.Errorf("first field %s: %s, want Host", q.Header[0].Name, q.Header[0].Value)
	}
}

// malformedHeads are requests whose streams are reset: A10, S17, S18 of the threat list.
var malformedHeads = map[string][]string{
	"A10 CRLF in a value":      {":method: GET", ":scheme: http", ":authority: a", ":path: /", "x: a\r\nb: c"},
	"A10 CRLF in the path":     {":method: GET", ":scheme: http", ":authority: a", ":path: / HTTP/1.1\r\nx: y"},
	"A10 space in the path":    {":method: GET", ":scheme: http", ":authority: a", ":path: /a b"},
	"A10 space in the method":  {":method: GET /", ":scheme: http", ":authority: a", ":path: /"},
	"A10 CR in the authority":  {":method: GET", ":scheme: http", ":authority: a\rb", ":path: /"},
	"A10 NUL in a value":       {":method: GET", ":scheme: http", ":authority: a", ":path: /", "x: a\x00b"},
	"A10 colon in a name":      {":method: GET", ":scheme: http", ":authority: a", ":path: /", "x:y: z"},
	"A10 LF in a name":         {":method: GET", ":scheme: http", ":authority: a", ":path: /", "x\ny: z"},
	"A10 capitals":             {":method: GET", ":scheme: http", ":authority: a", ":path: /", "X: z"},
	"A10 Transfer-Encoding":    {":method: POST", ":scheme: http", ":authority: a", ":path: /", "transfer-encoding: chunked"},
	"A10 Connection":           {":method: GET", ":scheme: http", ":authority: a", ":path: /", "connection: close"},
	"A10 Upgrade":              {":method: GET", ":scheme: http", ":authority: a", ":path: /", "upgrade: h2c"},
	"A10 te":                   {":method: GET", ":scheme: http", ":authority: a", ":path: /", "te: gzip"},
	"A10 white space around":   {":method: GET", ":scheme: http", ":authority: a", ":path: /", "x:  a"},
	"A10 a relative path":      {":method: GET", ":scheme: http", ":authority: a", ":path: a"},
	"A10 an absolute path":     {":method: GET", ":scheme: http", ":authority: a", ":path: http://b/"},
	"A10 no host":              {":method: GET", ":scheme: http", ":path: /"},
	"A10 length behind an end": {":method: GET", ":scheme: http", ":authority: a", ":path: /", "content-length: 5"},
	"S17 two lengths":          {":method: POST", ":scheme: http", ":authority: a", ":path: /", "content-length: 0", "content-length: 5"},
	"S17 two equal lengths":    {":method: POST", ":scheme: http", ":authority: a", ":path: /", "content-length: 0", "content-length: 0"},
	"S17 a length with a sign": {":method: POST", ":scheme: http", ":authority: a", ":path: /", "content-length: +0"},
	"S18 another host":         {":method: GET", ":scheme: http", ":authority: a", ":path: /", "host: b"},
	"S18 two hosts":            {":method: GET", ":scheme: http", ":path: /", "host: a", "host: a"},
}

func TestS17S18A10MalformedHeadsResetTheirStreams(t *testing.T) {
	for name, fields := range malformedHeads {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, nil)
			p.headers(1, true, fields...)
			if fault := p.feed(); fault != nil {
				t.Fatal(fault)
			}
			if p.requests[1] != nil || len(p.dropped) != 1 {
				t.Fatalf("request %v, dropped %v", p.requests[1], p.dropped)
			}
			if !has(p.sent(), "RST 1 PROTOCOL_ERROR") {
				t.Error("the stream was not reset")
			}
			p.ask(3, true)
			if p.feed(); p.requests[3] == nil {
				t.Error("the connection does not go on")
			}
		})
	}
}

func TestRequestsThatAreAnsweredAsRefused(t *testing.T) {
	long := strings.Repeat("a", 9000)
	fields := []string{":method: GET", ":scheme: http", ":authority: a", ":path: /"}
	for range 101 {
		fields = append(fields, "x: y")
	}
	for name, c := range map[string]struct {
		fields []string
		status int
	}{
		"E2 a long target":     {[]string{":method: GET", ":scheme: http", ":authority: a", ":path: /" + long}, 414},
		"E2 many fields":       {fields, 431},
		"C2 NUL in the path":   {[]string{":method: GET", ":scheme: http", ":authority: a", ":path: /%00"}, 400},
		"C4 a fragment":        {[]string{":method: GET", ":scheme: http", ":authority: a", ":path: /#a"}, 400},
		"A8 Expect":            {[]string{":method: POST", ":scheme: http", ":authority: a", ":path: /", "expect: y"}, 417},
		"another :protocol":    {[]string{":method: CONNECT", ":protocol: connect-udp", ":scheme: http", ":authority: a", ":path: /"}, 501},
		"no WebSocket of ours": {[]string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: /", "sec-websocket-version: 8"}, 400},
	} {
		p := newPair(t, nil)
		p.headers(1, true, c.fields...)
		if fault := p.feed(); fault != nil {
			t.Errorf("%s: %v", name, fault)
			continue
		}
		var m *dataplane.Malformed
		if !errors.As(p.refused[1], &m) || m.Status != c.status {
			t.Errorf("%s: %v, want %d", name, p.refused[1], c.status)
		}
	}
}

func TestS19BodiesThatAreNotAsLongAsTheySayAreReset(t *testing.T) {
	for name, c := range map[string]struct {
		length, data string
	}{"longer": {"3", "four"}, "shorter": {"5", "four"}} {
		p := newPair(t, nil)
		p.headers(1, false, ":method: POST", ":scheme: http", ":authority: a", ":path: /", "content-length: "+c.length)
		p.client.WriteData(1, true, []byte(c.data))
		if fault := p.feed(); fault != nil {
			t.Fatal(fault)
		}
		if !has(p.sent(), "RST 1 PROTOCOL_ERROR") {
			t.Errorf("%s: the stream was not reset", name)
		}
		if _, err := p.c.Read(p.streams[1], make([]byte, 10)); !errors.Is(err, dataplane.ErrClientBody) {
			t.Errorf("%s: Read = %v, want ErrClientBody: no server may take it for whole", name, err)
		}
	}
}

func TestD1RapidResetEndsTheConnection(t *testing.T) {
	p := newPair(t, nil)
	p.flooded(2*resetsAtOnce, func(i int) {
		id := uint32(2*i + 1)
		p.ask(id, true)
		p.client.WriteRSTStream(id, http2.ErrCodeCancel)
	})
	if n := p.glitches[dataplane.ResetByClient]; n > resetsAtOnce+1 {
		t.Errorf("%d resets were taken", n)
	}
}

func TestD1ExchangesOfResetStreamsTakeThePlaceOfOthers(t *testing.T) {
	p := newPair(t, func(c *Config) { c.Streams = 10 })
	for i := range 20 {
		id := uint32(2*i + 1)
		p.ask(id, true)
		p.client.WriteRSTStream(id, http2.ErrCodeCancel)
	}
	if fault := p.feed(); fault != nil {
		t.Fatal(fault)
	}
	if n := p.c.Running(); n != 10 {
		t.Errorf("%d exchanges run, want 10", n)
	}
	if !has(p.sent(), "RST 21 REFUSED_STREAM") {
		t.Error("the eleventh was not refused")
	}
	p.c.Done(p.streams[1])
	p.ask(41, true)
	if p.feed(); p.requests[41] == nil {
		t.Error("there is no place for another after one has ended")
	}
}

// madeYouReset are the ways of CVE-2025-8671 in which a client has us reset a stream.
var madeYouReset = map[string]func(p *pair, id uint32){
	"window update of nothing": func(p *pair, id uint32) { p.client.WriteRawFrame(http2.FrameWindowUpdate, 0, id, []byte{0, 0, 0, 0}) },
	"window above its maximum": func(p *pair, id uint32) { p.client.WriteWindowUpdate(id, 1<<31-1) },
	"DATA behind the end":      func(p *pair, id uint32) { p.client.WriteData(id, true, []byte("x")) },
	"HEADERS behind the end":   func(p *pair, id uint32) { p.ask(id, true) },
	"PRIORITY of another size": func(p *pair, id uint32) { p.client.WriteRawFrame(http2.FramePriority, 0, id, []byte{0, 0, 0, 0}) },
	"PRIORITY on itself": func(p *pair, id uint32) {
		p.client.WritePriority(id, http2.PriorityParam{StreamDep: id})
	},
}

func TestD2MadeYouResetIsPaidForAsRapidReset(t *testing.T) {
	for name, trick := range madeYouReset {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, nil)
			for i := range 2 * resetsAtOnce {
				id := uint32(2*i + 1)
				p.ask(id, true)
				trick(p, id)
				fault := p.feed()
				if fault == nil {
					p.c.Take(nil)
					continue
				}
				if !fault.Flood && name != "PRIORITY of another size" { // x/net ends the connection at once
					t.Errorf("after %d: %v", i, fault)
				}
				return
			}
			t.Error("still served")
		})
	}
}

func TestD3AHeadInManyFramesEndsTheConnection(t *testing.T) { // S20
	p := newPair(t, nil)
	p.client.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(":method: GET"), EndStream: true})
	p.flooded(continuations+1, func(int) { p.client.WriteContinuation(1, false, p.encode("x: y")) })
	if len(p.dropped) != 1 || p.c.Running() != 0 {
		t.Errorf("dropped %v, %d running", p.dropped, p.c.Running())
	}
}

func TestD3ALargeHeadIsNotDecodedToItsEnd(t *testing.T) {
	p := newPair(t, nil)
	p.client.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(":method: GET", ":scheme: http", ":authority: a", ":path: /"), EndStream: true})
	for range 4 {
		p.client.WriteContinuation(1, false, p.encode("x: "+strings.Repeat("v", 12<<10)))
	}
	p.client.WriteContinuation(1, true, []byte{0x80}) // an error of HPACK, if it were decoded
	if fault := p.feed(); fault != nil {
		t.Fatal(fault)
	}
	var m *dataplane.Malformed
	if !errors.As(p.refused[1], &m) || m.Status != 431 {
		t.Errorf("refused with %v, want 431", p.refused[1])
	}
	if !has(p.sent(), "GOAWAY 1 NO_ERROR") {
		t.Error("no GOAWAY: what the head would have put into the table is not known")
	}
	p.ask(3, true)
	if p.feed(); p.requests[3] != nil {
		t.Error("another request was taken")
	}
	p.c.Done(p.streams[1])
	if !p.c.Over() {
		t.Error("the connection is not over")
	}
}

func TestD4ControlFramesAreBounded(t *testing.T) {
	for name, frame := range map[string]func(p *pair, i int){
		"SETTINGS":      func(p *pair, _ int) { p.client.WriteSettings() },
		"SETTINGS ack":  func(p *pair, _ int) { p.client.WriteSettingsAck() },
		"PING":          func(p *pair, _ int) { p.client.WritePing(false, [8]byte{}) },
		"PING ack":      func(p *pair, _ int) { p.client.WritePing(true, [8]byte{}) },
		"PRIORITY":      func(p *pair, _ int) { p.client.WritePriority(1, http2.PriorityParam{}) },
		"WINDOW_UPDATE": func(p *pair, _ int) { p.client.WriteWindowUpdate(0, 1) },
		"empty DATA":    func(p *pair, _ int) { p.client.WriteData(1, false, nil) },
		"padded DATA":   func(p *pair, _ int) { p.client.WriteDataPadded(1, false, nil, make([]byte, 10)) },
		"tiny DATA":     func(p *pair, _ int) { p.client.WriteData(1, false, []byte("x")) },
		"unknown":       func(p *pair, _ int) { p.client.WriteRawFrame(0x77, 0, 0, nil) },
		"GOAWAY":        func(p *pair, _ int) { p.client.WriteGoAway(0, 0, nil) },
		"DATA too late": func(p *pair, i int) {
			if i == 0 {
				p.feed()
				p.c.Reset(p.streams[1], http2.ErrCodeNo)
			}
			p.client.WriteData(1, false, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, nil)
			p.headers(1, false, ":method: POST", ":scheme: http", ":authority: a", ":path: /")
			p.flooded(2*controlAtOnce, func(i int) { frame(p, i) })
		})
	}
}

func TestD4WhoReadsMuchMayUpdateWindows(t *testing.T) {
	p := newPair(t, nil)
	p.ask(1, true)
	p.feed()
	p.c.Head(p.streams[1], &dataplane.Response{Status: 200, Length: -1}, nil, false)
	for range 10 * controlAtOnce {
		if n, _ := p.c.Data(p.streams[1], make([]byte, 1000), nil, false, false); n != 1000 {
			t.Fatalf("%d bytes taken", n)
		}
		p.c.Take(nil)
		p.client.WriteWindowUpdate(0, 1000)
		p.client.WriteWindowUpdate(1, 1000)
		if fault := p.feed(); fault != nil {
			t.Fatal(fault)
		}
	}
}

func TestD5FieldsAreCountedAsTheyAreDecoded(t *testing.T) {
	p := newPair(t, nil)
	// A field of 3 KB in the table, named by one byte each time.
	value := "x: " + strings.Repeat("v", 3000)
	p.ask(1, true, value)
	many := []string{}
	for range 100 {
		many = append(many, value)
	}
	p.ask(3, true, many...)
	if fault := p.feed(); fault != nil {
		t.Fatal(fault)
	}
	var m *dataplane.Malformed
	if !errors.As(p.refused[3], &m) || m.Status != 431 {
		t.Errorf("refused with %v, want 431", p.refused[3])
	}
	if n := cap(p.streams[3].Decoder.Text()); n > 3*testLimits.HeaderBytes {
		t.Errorf("%d bytes were kept of it", n)
	}
}

func TestD5TheTableIsNoLargerThanWeSaid(t *testing.T) {
	p := newPair(t, nil)
	block := append([]byte{0x3f, 0xe2, 0x1f}, p.encode(":method: GET")...) // a table of 4097
	p.client.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
	if fault := p.feed(); fault == nil || fault.Code != http2.ErrCodeCompression {
		t.Errorf("%v, want COMPRESSION_ERROR", fault)
	}
}

func TestD6WhatWaitsForTheClientIsBounded(t *testing.T) {
	p := newPair(t, nil)
	p.client.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	p.client.WriteWindowUpdate(0, 1<<30)
	for i := range 50 {
		p.ask(uint32(2*i+1), true)
	}
	p.feed()
	p.c.Take(nil)
	for i := range 50 {
		s := p.streams[uint32(2*i+1)]
		p.c.Head(s, &dataplane.Response{Status: 200, Length: -1}, nil, false)
		p.c.Data(s, make([]byte, 16<<10), nil, false, false)
	}
	if n := p.c.Unsent(); n > 64<<10+50*100 {
		t.Errorf("%d bytes wait to be sent", n)
	}
}

func TestD6AZeroWindowHoldsNothing(t *testing.T) {
	p := newPair(t, nil)
	p.client.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	p.ask(1, true)
	p.feed()
	if n, _ := p.c.Data(p.streams[1], []byte("x"), nil, true, false); n != 0 {
		t.Errorf("%d bytes taken into no window", n)
	}
	p.client.WriteWindowUpdate(1, 1)
	p.feed()
	if n, _ := p.c.Data(p.streams[1], []byte("x"), nil, true, false); n != 1 {
		t.Errorf("%d bytes taken into a window of 1", n)
	}
}

func TestD6ABodyIsNoLargerThanItsWindow(t *testing.T) {
	p := newPair(t, func(c *Config) { c.Window = 64 << 10; c.ConnWindow = 1 << 20 })
	p.headers(1, false, ":method: POST", ":scheme: http", ":authority: a", ":path: /")
	for range 5 {
		p.client.WriteData(1, false, make([]byte, 16<<10))
	}
	if fault := p.feed(); fault != nil {
		t.Fatal(fault)
	}
	if !has(p.sent(), "RST 1 FLOW_CONTROL_ERROR") {
		t.Error("more than the window was taken")
	}
}

func TestD7RequestsOfAConnectionAreBounded(t *testing.T) {
	p := newPair(t, func(c *Config) { c.Requests = 50; c.Streams = 10 })
	served := 0
	for i := range 100 {
		id := uint32(2*i + 1)
		p.ask(id, true)
		if fault := p.feed(); fault != nil {
			t.Fatal(fault)
		}
		if s := p.streams[id]; s != nil {
			served++
			p.c.Head(s, &dataplane.Response{Status: 204}, nil, true)
			p.c.Done(s)
		}
		if p.c.Over() {
			break
		}
	}
	if served != 60 { // those that were on their way are served
		t.Errorf("%d requests were served, want 50 and 10 more", served)
	}
}

func TestLeaveLosesNoRequest(t *testing.T) {
	p := newPair(t, nil)
	p.ask(1, true)
	p.feed()
	p.c.Leave(false)
	p.ask(3, true) // on its way when GOAWAY was
	p.client.WritePing(true, leavePing)
	p.ask(5, true) // by a client that does not listen
	if fault := p.feed(); fault != nil {
		t.Fatal(fault)
	}
	if p.requests[3] == nil || p.requests[5] != nil {
		t.Errorf("requests 3: %v, 5: %v; want the first of them", p.requests[3], p.requests[5])
	}
	words := p.sent()
	if !has(words, "GOAWAY 2147483647 NO_ERROR") || !has(words, "GOAWAY 3 NO_ERROR") {
		t.Errorf("sent %v", words)
	}
	if p.c.Done(p.streams[1]); p.c.Over() {
		t.Error("over with a request that was not answered")
	}
	if p.c.Done(p.streams[3]); !p.c.Over() {
		t.Error("not over")
	}
}

func TestTrailersPass(t *testing.T) {
	p := newPair(t, nil)
	p.headers(1, false, ":method: POST", ":scheme: http", ":authority: a", ":path: /")
	p.client.WriteData(1, false, []byte("body"))
	p.headers(1, true, "grpc-status: 0")
	if fault := p.feed(); fault != nil {
		t.Fatal(fault)
	}
	s := p.streams[1]
	b := make([]byte, 10)
	if n, err := p.c.Read(s, b); string(b[:n]) != "body" || err != nil {
		t.Errorf("Read = %q, %v", b[:n], err)
	}
	if _, err := p.c.Read(s, b); err != io.EOF {
		t.Errorf("Read = %v, want EOF", err)
	}
	if got := string(s.Trailers()); got != "grpc-status: 0\r\n" {
		t.Errorf("trailers %q", got)
	}
}

// A stream that waits for its turn among others is not its client's fault; one whose window is
// shut is.
func TestE1WhoseFaultItIsThatAStreamWaits(t *testing.T) {
	p := newPair(t, func(c *Config) { c.Unsent = 16 << 10 })
	p.client.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 30 << 10})
	p.ask(1, true)
	p.ask(3, true)
	p.feed()
	body := make([]byte, 64<<10)
	if taken, _ := p.c.Data(p.streams[1], body, nil, false, false); taken == 0 || !p.c.MaySend(p.streams[1]) {
		t.Errorf("of a stream %d bytes are taken; may it send more? %t", taken, p.c.MaySend(p.streams[1]))
	}
	if taken, _ := p.c.Data(p.streams[3], body, nil, false, false); taken != 0 || !p.c.MaySend(p.streams[3]) {
		t.Errorf("behind another %d bytes are taken; may it send? %t", taken, p.c.MaySend(p.streams[3]))
	}
	p.c.Take(nil)
	p.c.Data(p.streams[1], body, nil, false, false)
	if p.c.MaySend(p.streams[1]) {
		t.Error("a stream may send more than its client's window has")
	}
}

// A client may shrink the window of a stream below nothing (RFC 9113, 6.9.2). The end of an
// answer needs none.
func TestAnEndOfAnAnswerNeedsNoWindow(t *testing.T) {
	p := newPair(t, nil)
	p.ask(1, true)
	p.feed()
	s := p.streams[1]
	p.c.Head(s, &dataplane.Response{Status: 200, Length: -1}, nil, false)
	if n, _ := p.c.Data(s, make([]byte, 1000), nil, false, false); n != 1000 {
		t.Fatalf("%d bytes taken", n)
	}
	p.client.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	p.feed()
	p.c.Take(nil)
	if n, _ := p.c.Data(s, []byte("x"), nil, true, false); n != 0 || s.Gone() {
		t.Errorf("%d bytes taken into less than no window", n)
	}
	if n, sent := p.c.Data(s, nil, nil, true, false); n != 0 || sent != frameHead || !s.Gone() {
		t.Errorf("the end is not sent: %d bytes of %d", n, sent)
	}
}

// What a head's block puts into the table is not known if its padding is wrong, so nothing that
// comes behind it can be decoded (RFC 9113, 4.3).
func TestAHeadThatCannotBeDecodedEndsTheConnection(t *testing.T) {
	p := newPair(t, nil)
	p.client.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, []byte{9, 0x82})
	if fault := p.feed(); fault == nil || fault.Code != http2.ErrCodeProtocol {
		t.Errorf("%v, want PROTOCOL_ERROR", fault)
	}
}

// A frame of SETTINGS changes windows once, however often it says so.
func TestD4SettingsThatRepeatThemselvesCostNoMore(t *testing.T) {
	p := newPair(t, nil)
	for i := range 50 {
		p.ask(uint32(2*i+1), true)
	}
	p.feed()
	p.woken = 0
	var all []http2.Setting
	for i := range 2000 {
		all = append(all, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)})
	}
	p.client.WriteSettings(all...)
	if fault := p.feed(); fault != nil {
		t.Fatal(fault)
	}
	if p.woken != 1 {
		t.Errorf("windows were widened %d times, want once", p.woken)
	}
	p.c.Head(p.streams[1], &dataplane.Response{Status: 200, Length: -1}, nil, false)
	if n, _ := p.c.Data(p.streams[1], make([]byte, 3000), nil, false, false); n != 1999 {
		t.Errorf("%d bytes taken, want the last window that was said", n)
	}
}

// Who holds streams open whose windows are shut has nothing done by widening that of the
// connection, which was open.
func TestD4WindowsThatHoldNobodyUpWakeNobody(t *testing.T) {
	p := newPair(t, nil)
	p.client.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range 50 {
		p.ask(uint32(2*i+1), true)
	}
	p.feed()
	p.woken = 0
	for range 500 {
		p.client.WriteWindowUpdate(0, 1)
	}
	if p.feed(); p.woken != 0 {
		t.Errorf("windows were widened %d times for nobody", p.woken)
	}
	p.client.WriteWindowUpdate(1, 10)
	p.client.WriteWindowUpdate(1, 10)
	if p.feed(); p.woken != 1 {
		t.Errorf("a window that was shut was widened %d times, want once", p.woken)
	}
}
