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
)

// A server is a server in memory, and the Client that it may do anything to.
type server struct {
	t       testing.TB
	c       *Client
	now     time.Duration
	said    bytes.Buffer // by the server, not fed yet
	frames  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
	calls   map[uint32]*Call
	woken   map[uint32]int
}

const clientWindow = 64 << 10

func newServer(t testing.TB) *server {
	p := &server{t: t, calls: map[uint32]*Call{}, woken: map[uint32]int{}}
	p.c = NewClient(ClientConfig{Streams: 100, Window: clientWindow, Limits: testLimits, Unsent: 64 << 10}, func(s *Call) { p.woken[s.id]++ }, 0)
	p.frames = http2.NewFramer(&p.said, nil)
	p.frames.AllowIllegalWrites = true
	p.encoder = hpack.NewEncoder(&p.block)
	return p
}

// greeted is newServer that has said SETTINGS and been asked for n streams with a body to come.
func greeted(t testing.TB, n int) *server {
	p := newServer(t)
	p.frames.WriteSettings()
	p.feed()
	for range n {
		p.ask(dataplane.GET, false)
	}
	p.c.Take(nil)
	return p
}

func (p *server) feed() error {
	used, err := p.c.Feed(p.said.Bytes(), p.now)
	p.said.Next(used)
	return err
}

// ask opens the next stream; last is that there is no body.
func (p *server) ask(m dataplane.Method, last bool) *Call {
	p.t.Helper()
	q := &dataplane.Request{Method: m, MethodText: []byte("GET"), Path: []byte("/"), Length: -1}
	s := &Call{}
	if !p.c.Reserve() || !p.c.Ask(s, q, "http", last) {
		p.t.Fatal("no room for a stream")
	}
	p.calls[s.id] = s
	return s
}

func (p *server) headers(id uint32, ends bool, fields ...string) {
	p.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields...), EndStream: ends, EndHeaders: true})
}

func (p *server) encode(fields ...string) []byte {
	p.block.Reset()
	for _, f := range fields {
		at := strings.Index(f[1:], ": ") + 1
		p.encoder.WriteField(hpack.HeaderField{Name: f[:at], Value: f[at+2:]})
	}
	return p.block.Bytes()
}

// got returns the frames that the server gets, in words. The preface is not among them.
func (p *server) got() (words []string) {
	fr := http2.NewFramer(nil, bytes.NewReader(bytes.TrimPrefix(p.c.Take(nil), []byte(Preface))))
	for {
		f, err := fr.ReadFrame()
		if err == io.EOF {
			return words
		}
		if err != nil {
			p.t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			words = append(words, fmt.Sprintf("RST %d %v", f.StreamID, f.ErrCode))
		case *http2.GoAwayFrame:
			words = append(words, fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode))
		case *http2.WindowUpdateFrame:
			words = append(words, fmt.Sprintf("WINDOW_UPDATE %d %d", f.StreamID, f.Increment))
		case *http2.DataFrame:
			words = append(words, fmt.Sprintf("DATA %d %d %v", f.StreamID, f.Length, f.StreamEnded()))
		default:
			words = append(words, fmt.Sprintf("%v %d", f.Header().Type, f.Header().StreamID))
		}
	}
}

// answer is what has come of a stream, in words: statuses, body, trailers, and how it ended.
func (p *server) answer(s *Call) string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	for {
		r, err := s.Head()
		if r == nil {
			if err != nil && !s.final {
				return strings.Join(append(words, say(err)), " ")
			}
			break
		}
		add("%d", r.Status)
	}
	b := make([]byte, 1<<20)
	for {
		n, err := p.c.Read(s, b)
		if n > 0 {
			if n > 20 {
				add("%d bytes", n)
			} else {
				add("%q", b[:n])
			}
			continue
		}
		switch {
		case err == io.EOF:
			if t := s.Trailers(); len(t) > 0 {
				add("%q", t)
			}
			add("end")
		case err != nil:
			add("%s", say(err))
		default:
			add("open")
		}
		return strings.Join(words, " ")
	}
}

// say is an error in a word: the reason, if something is malformed.
func say(err error) string {
	var m *dataplane.Malformed
	switch {
	case errors.Is(err, ErrRefused):
		return "refused"
	case errors.Is(err, ErrReset):
		return "reset"
	case errors.As(err, &m) && errors.Is(err, dataplane.ErrResponse):
		return m.Reason
	}
	return err.Error()
}

// What comes of two streams, 1 and 3, and what the server hears of it, for each thing that it
// may do. "GOAWAY" among the latter is the end of the connection.
func TestAnswersOfServersThatAreNotTrusted(t *testing.T) {
	raw := func(p *server, kind http2.FrameType, flags http2.Flags, id uint32, b ...byte) {
		p.frames.WriteRawFrame(kind, flags, id, b)
	}
	setting := func(id http2.SettingID, value uint32) func(*server) {
		return func(p *server) { p.frames.WriteSettings(http2.Setting{ID: id, Val: value}) }
	}
	head := func(fields ...string) func(*server) {
		return func(p *server) { p.headers(1, true, fields...) }
	}
	both := "; "
	const open, lost = "open", "h2_connection"
	for name, c := range map[string]struct {
		does func(p *server)
		want string // of stream 1, and of stream 3
		hear string
	}{
		"an answer": {func(p *server) {
			p.headers(1, false, ":status: 200", "content-length: 4")
			p.frames.WriteData(1, true, []byte("body"))
		}, `200 "body" end` + both + open, ""},
		"an answer in frames with padding": {func(p *server) {
			p.headers(1, false, ":status: 200", "content-length: 4")
			p.frames.WriteDataPadded(1, false, []byte("bo"), make([]byte, 200))
			p.frames.WriteDataPadded(1, true, []byte("dy"), make([]byte, 255))
		}, `200 "body" end` + both + open, ""},
		"trailers": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.headers(1, true, "grpc-status: 0", "content-length: 7")
		}, `200 "grpc-status: 0\r\n" end` + both + open, ""},
		"interim answers": {func(p *server) {
			p.headers(1, false, ":status: 100")
			p.headers(1, false, ":status: 103", "link: </a>")
			p.headers(1, true, ":status: 204")
		}, "100 103 204 end" + both + open, ""},

		// Ends.
		"GOAWAY between the two": {func(p *server) { p.frames.WriteGoAway(1, http2.ErrCodeNo, nil) }, open + both + "refused", ""},
		"GOAWAY for all":         {func(p *server) { p.frames.WriteGoAway(lastStreamID, http2.ErrCodeNo, nil) }, open + both + open, ""},
		"GOAWAY that then counts fewer": {func(p *server) {
			p.frames.WriteGoAway(lastStreamID, http2.ErrCodeNo, nil)
			p.frames.WriteGoAway(1, http2.ErrCodeNo, nil)
		}, open + both + "refused", ""},
		"GOAWAY below a stream that is answered": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.frames.WriteGoAway(0, http2.ErrCodeInternal, nil)
		}, "200 reset" + both + "refused", ""},
		"GOAWAY below a stream that is whole": {func(p *server) {
			p.headers(1, true, ":status: 200")
			p.frames.WriteGoAway(0, http2.ErrCodeNo, nil)
		}, "200 end" + both + "refused", ""},
		"GOAWAY on a stream": {func(p *server) { raw(p, http2.FrameGoAway, 0, 1, make([]byte, 8)...) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"GOAWAY cut short":   {func(p *server) { raw(p, http2.FrameGoAway, 0, 0, 1, 2, 3) }, lost + both + lost, "GOAWAY 0 FRAME_SIZE_ERROR"},
		"REFUSED_STREAM":     {func(p *server) { p.frames.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, "refused" + both + open, ""},
		"REFUSED_STREAM of what it has answered": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.frames.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		}, "200 reset" + both + open, ""},
		"CANCEL": {func(p *server) { p.frames.WriteRSTStream(1, http2.ErrCodeCancel) }, "reset" + both + open, ""},
		"NO_ERROR behind a whole answer": {func(p *server) {
			p.headers(1, true, ":status: 413")
			p.frames.WriteRSTStream(1, http2.ErrCodeNo)
		}, "413 end" + both + open, ""},
		"CANCEL behind a whole answer": {func(p *server) {
			p.headers(1, true, ":status: 413")
			p.frames.WriteRSTStream(1, http2.ErrCodeCancel)
		}, "413 end" + both + open, ""},
		"NO_ERROR within an answer": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.frames.WriteData(1, false, []byte("a"))
			p.frames.WriteRSTStream(1, http2.ErrCodeNo)
		}, `200 "a" reset` + both + open, ""},
		"an unknown code":        {func(p *server) { p.frames.WriteRSTStream(1, 0xdead) }, "reset" + both + open, ""},
		"RST_STREAM of 3 bytes":  {func(p *server) { raw(p, http2.FrameRSTStream, 0, 1, 1, 2, 3) }, lost + both + lost, "GOAWAY 0 FRAME_SIZE_ERROR"},
		"RST_STREAM of an idle":  {func(p *server) { p.frames.WriteRSTStream(5, 0) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"RST_STREAM of stream 0": {func(p *server) { raw(p, http2.FrameRSTStream, 0, 0, 0, 0, 0, 0) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},

		// Frames where none may be.
		"DATA on stream 0":          {func(p *server) { p.frames.WriteData(0, false, []byte("a")) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"DATA on an idle stream":    {func(p *server) { p.frames.WriteData(5, false, []byte("a")) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"DATA on a stream of its":   {func(p *server) { p.frames.WriteData(2, false, []byte("a")) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"HEADERS on stream 0":       {func(p *server) { p.headers(0, true, ":status: 200") }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"HEADERS on an idle stream": {func(p *server) { p.headers(5, true, ":status: 200") }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"HEADERS on a stream of its": {func(p *server) {
			p.headers(2, true, ":status: 200")
		}, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"frames on a closed stream": {func(p *server) {
			p.c.Done(p.calls[1])
			p.headers(1, false, ":status: 200")
			p.frames.WriteData(1, false, []byte("a"))
			p.frames.WriteWindowUpdate(1, 5)
			p.frames.WriteRSTStream(1, http2.ErrCodeCancel)
			p.headers(3, true, ":status: 204")
		}, "reset" + both + "204 end", "RST 1 CANCEL"},
		"DATA before HEADERS": {func(p *server) { p.frames.WriteData(1, false, []byte("a")) }, "h2_stream" + both + open, "RST 1 PROTOCOL_ERROR"},
		"DATA behind 100": {func(p *server) {
			p.headers(1, false, ":status: 100")
			p.frames.WriteData(1, false, []byte("a"))
		}, "100 h2_stream" + both + open, "RST 1 PROTOCOL_ERROR"},
		"DATA behind the end": {func(p *server) {
			p.headers(1, true, ":status: 200")
			p.frames.WriteData(1, false, []byte("a"))
		}, "200 end" + both + open, "RST 1 STREAM_CLOSED"},
		"HEADERS behind the end": {func(p *server) {
			p.headers(1, true, ":status: 200")
			p.headers(1, true, ":status: 200")
		}, "200 end" + both + open, "RST 1 PROTOCOL_ERROR"},
		"PUSH_PROMISE": {func(p *server) {
			p.frames.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: p.encode(":method: GET"), EndHeaders: true})
		}, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"CONTINUATION without a head": {func(p *server) { p.frames.WriteContinuation(1, true, nil) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"a frame within a head": {func(p *server) {
			p.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(":status: 200")})
			p.frames.WritePing(false, [8]byte{})
		}, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"a head that goes on at another stream": {func(p *server) {
			p.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(":status: 200")})
			p.frames.WriteContinuation(3, true, nil)
		}, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"a frame of an unknown kind":        {func(p *server) { raw(p, 0x77, 0xff, 1, 1, 2, 3) }, open + both + open, ""},
		"a frame that is too large":         {func(p *server) { raw(p, http2.FrameData, 0, 1, make([]byte, frameBytes+1)...) }, lost + both + lost, "GOAWAY 0 FRAME_SIZE_ERROR"},
		"a head with priority":              {func(p *server) { raw(p, http2.FrameHeaders, 0x25, 1, 0, 0, 0, 3, 9, 0x88) }, "200 end" + both + open, ""},
		"DATA with more padding than bytes": {func(p *server) { raw(p, http2.FrameData, http2.FlagDataPadded, 1, 9, 0) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"DATA with padding of no length":    {func(p *server) { raw(p, http2.FrameData, http2.FlagDataPadded, 1) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"HEADERS with more padding than bytes": {func(p *server) {
			raw(p, http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, 9, 0x88)
		}, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},

		// Settings.
		"no push":                     {setting(http2.SettingEnablePush, 0), open + both + open, "SETTINGS 0"},
		"push":                        {setting(http2.SettingEnablePush, 1), lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"push of 2":                   {setting(http2.SettingEnablePush, 2), lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"a window of 2^31-1":          {setting(http2.SettingInitialWindowSize, 1<<31-1), open + both + open, "SETTINGS 0"},
		"a window of 2^31":            {setting(http2.SettingInitialWindowSize, 1<<31), lost + both + lost, "GOAWAY 0 FLOW_CONTROL_ERROR"},
		"frames of 16384":             {setting(http2.SettingMaxFrameSize, 1<<14), open + both + open, "SETTINGS 0"},
		"frames of 16383":             {setting(http2.SettingMaxFrameSize, 1<<14-1), lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"frames of 2^24-1":            {setting(http2.SettingMaxFrameSize, 1<<24-1), open + both + open, "SETTINGS 0"},
		"frames of 2^24":              {setting(http2.SettingMaxFrameSize, 1<<24), lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"a table of 2^32-1":           {setting(http2.SettingHeaderTableSize, 1<<32-1), open + both + open, "SETTINGS 0"},
		"streams of 2^32-1":           {setting(http2.SettingMaxConcurrentStreams, 1<<32-1), open + both + open, "SETTINGS 0"},
		"no streams":                  {setting(http2.SettingMaxConcurrentStreams, 0), open + both + open, "SETTINGS 0"},
		"a list of nothing":           {setting(http2.SettingMaxHeaderListSize, 0), open + both + open, "SETTINGS 0"},
		"an unknown setting":          {setting(0xfff, 7), open + both + open, "SETTINGS 0"},
		"SETTINGS on a stream":        {func(p *server) { raw(p, http2.FrameSettings, 0, 1) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"SETTINGS of 5 bytes":         {func(p *server) { raw(p, http2.FrameSettings, 0, 0, make([]byte, 5)...) }, lost + both + lost, "GOAWAY 0 FRAME_SIZE_ERROR"},
		"SETTINGS acknowledged":       {func(p *server) { p.frames.WriteSettingsAck() }, open + both + open, ""},
		"an acknowledgement of bytes": {func(p *server) { raw(p, http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6)...) }, lost + both + lost, "GOAWAY 0 FRAME_SIZE_ERROR"},
		"a window above its maximum by a setting": {func(p *server) {
			p.frames.WriteWindowUpdate(1, 1<<31-1-startWindow)
			p.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: startWindow + 1})
		}, lost + both + lost, "GOAWAY 0 FLOW_CONTROL_ERROR"},

		// Windows.
		"a window of the stream above its maximum":     {func(p *server) { p.frames.WriteWindowUpdate(1, 1<<31-1) }, "h2_stream" + both + open, "RST 1 FLOW_CONTROL_ERROR"},
		"a window of the connection above its maximum": {func(p *server) { p.frames.WriteWindowUpdate(0, 1<<31-1) }, lost + both + lost, "GOAWAY 0 FLOW_CONTROL_ERROR"},
		"no larger window of the stream":               {func(p *server) { raw(p, http2.FrameWindowUpdate, 0, 1, 0, 0, 0, 0) }, "h2_stream" + both + open, "RST 1 PROTOCOL_ERROR"},
		"no larger window of the connection":           {func(p *server) { raw(p, http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 0) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"a window of an idle stream":                   {func(p *server) { p.frames.WriteWindowUpdate(5, 1) }, lost + both + lost, "GOAWAY 0 PROTOCOL_ERROR"},
		"more than the window of the stream": {func(p *server) {
			p.headers(1, false, ":status: 200")
			for range clientWindow/frameBytes + 1 {
				p.frames.WriteData(1, false, make([]byte, frameBytes))
			}
		}, "200 65536 bytes h2_stream" + both + open, "RST 1 FLOW_CONTROL_ERROR"},
		"more than the window of the stream, as padding": {func(p *server) {
			p.headers(1, false, ":status: 200")
			for range clientWindow/256 + 1 {
				p.frames.WriteDataPadded(1, false, nil, make([]byte, 255))
			}
		}, "200 open" + both + open, "WINDOW_UPDATE 1 32768,WINDOW_UPDATE 1 32768"},

		// Lengths.
		"a body that is longer than it says": {func(p *server) {
			p.headers(1, false, ":status: 200", "content-length: 3")
			p.frames.WriteData(1, false, []byte("four"))
		}, "200 content_length" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a body that is shorter than it says": {func(p *server) {
			p.headers(1, false, ":status: 200", "content-length: 5")
			p.frames.WriteData(1, true, []byte("four"))
		}, "200 content_length" + both + open, "RST 1 PROTOCOL_ERROR"},
		"trailers before the length is there": {func(p *server) {
			p.headers(1, false, ":status: 200", "content-length: 5")
			p.headers(1, true, "x: y")
		}, "200 content_length" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a head alone that says a length": {head(":status: 200", "content-length: 5"), "content_length" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a body of 204": {func(p *server) {
			p.headers(1, false, ":status: 204")
			p.frames.WriteData(1, true, []byte("a"))
		}, "204 content_length" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a body of 304": {func(p *server) {
			p.headers(1, false, ":status: 304", "content-length: 1")
			p.frames.WriteData(1, true, []byte("a"))
		}, "304 content_length" + both + open, "RST 1 PROTOCOL_ERROR"},
		"two lengths":       {head(":status: 200", "content-length: 0", "content-length: 1"), "content_length_twice" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a negative length": {head(":status: 200", "content-length: -1"), "content_length" + both + open, "RST 1 PROTOCOL_ERROR"},

		// Heads.
		"no :status":             {head("a: b"), "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		"two :status":            {head(":status: 200", ":status: 200"), "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		":status behind a field": {head("a: b", ":status: 200"), "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		":status of letters":     {head(":status: 2x0"), "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		":status of 2 digits":    {head(":status: 20"), "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		":status 099":            {head(":status: 099"), "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		":status 101":            {func(p *server) { p.headers(1, false, ":status: 101") }, "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		":path in an answer":     {head(":status: 200", ":path: /"), "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a name in capitals":     {head(":status: 200", "X-Y: z"), "field_name" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a name with a space":    {head(":status: 200", "x y: z"), "field_name" + both + open, "RST 1 PROTOCOL_ERROR"},
		"CRLF in a value":        {head(":status: 200", "x: a\r\nb: c"), "field_value" + both + open, "RST 1 PROTOCOL_ERROR"},
		"NUL in a value":         {head(":status: 200", "x: a\x00"), "field_value" + both + open, "RST 1 PROTOCOL_ERROR"},
		"connection":             {head(":status: 200", "connection: close"), "connection" + both + open, "RST 1 PROTOCOL_ERROR"},
		"transfer-encoding":      {head(":status: 200", "transfer-encoding: chunked"), "connection" + both + open, "RST 1 PROTOCOL_ERROR"},
		"keep-alive":             {head(":status: 200", "keep-alive: 5"), "connection" + both + open, "RST 1 PROTOCOL_ERROR"},
		"proxy-connection":       {head(":status: 200", "proxy-connection: close"), "connection" + both + open, "RST 1 PROTOCOL_ERROR"},
		"upgrade":                {head(":status: 200", "upgrade: h2c"), "connection" + both + open, "RST 1 PROTOCOL_ERROR"},
		"an interim answer that ends it": {func(p *server) { p.headers(1, true, ":status: 103") },
			"interim_body" + both + open, "RST 1 PROTOCOL_ERROR"},
		"an interim answer with a length": {func(p *server) { p.headers(1, false, ":status: 103", "content-length: 5") },
			"interim_body" + both + open, "RST 1 PROTOCOL_ERROR"},
		"an interim answer behind the final one": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.headers(1, false, ":status: 103")
		}, "200 trailers" + both + open, "RST 1 PROTOCOL_ERROR"},
		"interim answers without end": {func(p *server) {
			for range mostInterims + 1 {
				p.headers(1, false, ":status: 103")
			}
		}, strings.Repeat("103 ", mostInterims) + "interim_flood" + both + open, "RST 1 ENHANCE_YOUR_CALM"},
		"trailers that do not end it": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.headers(1, false, "a: b")
		}, "200 trailers" + both + open, "RST 1 PROTOCOL_ERROR"},
		"trailers with :status": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.headers(1, true, ":status: 200")
		}, "200 trailers" + both + open, "RST 1 PROTOCOL_ERROR"},
		"trailers in capitals": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.headers(1, true, "Grpc-Status: 0")
		}, "200 trailers" + both + open, "RST 1 PROTOCOL_ERROR"},
		"trailers with CRLF": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.headers(1, true, "a: b\r\nc: d")
		}, "200 trailers" + both + open, "RST 1 PROTOCOL_ERROR"},

		// Limits.
		"too many fields": {func(p *server) {
			p.headers(1, true, append([]string{":status: 200"}, slicesOf(testLimits.Fields, "a: b")...)...)
		}, "header_size" + both + open, "RST 1 PROTOCOL_ERROR"},
		"too many fields of trailers": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.headers(1, true, slicesOf(testLimits.Fields+1, "a: b")...)
		}, "200 trailers" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a bomb of HPACK": {func(p *server) { // 3 KB in the table, named by a byte each time
			p.headers(1, true, append([]string{":status: 200"}, slicesOf(90, "a: "+strings.Repeat("v", 3000))...)...)
		}, "header_size" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a bomb of HPACK in trailers": {func(p *server) {
			p.headers(1, false, ":status: 200")
			p.headers(1, true, slicesOf(90, "a: "+strings.Repeat("v", 3000))...)
		}, "200 trailers" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a value that is longer than a head": {func(p *server) {
			b := p.encode(":status: 200", "a: "+strings.Repeat("\x01", testLimits.HeaderBytes+1))
			p.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:frameBytes]})
			for b = b[frameBytes:]; len(b) > frameBytes; b = b[frameBytes:] {
				p.frames.WriteContinuation(1, false, b[:frameBytes])
			}
			p.frames.WriteContinuation(1, true, b)
		}, lost + both + lost, "GOAWAY 0 COMPRESSION_ERROR"},
		"a table that is larger than we said": {func(p *server) {
			raw(p, http2.FrameHeaders, 5, 1, 0x3f, 0xe2, 0x1f, 0x88)
		}, lost + both + lost, "GOAWAY 0 COMPRESSION_ERROR"},
		"a field of no table":  {func(p *server) { raw(p, http2.FrameHeaders, 5, 1, 0xff, 0x80, 0x01) }, lost + both + lost, "GOAWAY 0 COMPRESSION_ERROR"},
		"a head that is cut":   {func(p *server) { raw(p, http2.FrameHeaders, 5, 1, 0x40, 0x05, 'a') }, lost + both + lost, "GOAWAY 0 COMPRESSION_ERROR"},
		"a head without bytes": {func(p *server) { raw(p, http2.FrameHeaders, 5, 1) }, "pseudo" + both + open, "RST 1 PROTOCOL_ERROR"},
		"a head in too many frames": {func(p *server) {
			p.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(":status: 200")})
			for range continuations + 1 {
				p.frames.WriteContinuation(1, false, p.encode("a: b"))
			}
		}, lost + both + lost, "GOAWAY 0 ENHANCE_YOUR_CALM"},
	} {
		t.Run(name, func(t *testing.T) {
			p := greeted(t, 2)
			c.does(p)
			err := p.feed()
			hear := p.got()
			if goes := strings.HasPrefix(c.hear, "GOAWAY"); goes != (err != nil) || goes != p.c.Over() && !strings.Contains(c.want, "refused") {
				t.Errorf("the connection ends with %v", err)
			}
			if got := strings.Join(hear, ","); got != c.hear {
				t.Errorf("the server hears %q, want %q", got, c.hear)
			}
			if got := p.answer(p.calls[1]) + both + p.answer(p.calls[3]); got != c.want {
				t.Errorf("the streams get %q, want %q", got, c.want)
			}
		})
	}
}

func slicesOf(n int, s string) (all []string) {
	for range n {
		all = append(all, s)
	}
	return all
}

func TestServersThatDoNotSpeakHTTP2(t *testing.T) {
	for name, c := range map[string]struct {
		says func(p *server)
		code http2.ErrCode
	}{
		"HTTP/1.1":      {func(p *server) { p.said.WriteString("HTTP/1.1 400 Bad Request\r\n\r\n") }, http2.ErrCodeProtocol},
		"PING first":    {func(p *server) { p.frames.WritePing(false, [8]byte{}) }, http2.ErrCodeProtocol},
		"ack first":     {func(p *server) { p.frames.WriteSettingsAck() }, http2.ErrCodeProtocol},
		"HEADERS first": {func(p *server) { p.headers(1, true, ":status: 200") }, http2.ErrCodeProtocol},
		"zeros":         {func(p *server) { p.said.Write(make([]byte, 100)) }, http2.ErrCodeProtocol},
	} {
		p := newServer(t)
		s := p.ask(dataplane.GET, true)
		p.c.Take(nil)
		c.says(p)
		if err := p.feed(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if got, want := p.got(), fmt.Sprintf("GOAWAY 0 %v", c.code); !has(got, want) {
			t.Errorf("%s: the server hears %v, want %s", name, got, want)
		}
		if got := p.answer(s); got != "h2_connection" {
			t.Errorf("%s: the stream gets %s", name, got)
		}
	}
}

func TestAServersFloodsEndItsConnection(t *testing.T) {
	for name, c := range map[string]func(p *server){
		"SETTINGS":          func(p *server) { p.frames.WriteSettings() },
		"SETTINGS ack":      func(p *server) { p.frames.WriteSettingsAck() },
		"PING":              func(p *server) { p.frames.WritePing(false, [8]byte{}) },
		"PING ack":          func(p *server) { p.frames.WritePing(true, [8]byte{}) },
		"PRIORITY":          func(p *server) { p.frames.WritePriority(1, http2.PriorityParam{}) },
		"WINDOW_UPDATE":     func(p *server) { p.frames.WriteWindowUpdate(0, 1) },
		"of a stream":       func(p *server) { p.frames.WriteWindowUpdate(1, 1) },
		"unknown":           func(p *server) { p.frames.WriteRawFrame(0x77, 0, 0, nil) },
		"GOAWAY":            func(p *server) { p.frames.WriteGoAway(lastStreamID, 0, nil) },
		"empty DATA":        func(p *server) { p.frames.WriteData(1, false, nil) },
		"padded DATA":       func(p *server) { p.frames.WriteDataPadded(1, false, nil, make([]byte, 10)) },
		"DATA too late":     func(p *server) { p.frames.WriteData(3, false, []byte("a")) },
		"HEADERS too late":  func(p *server) { p.headers(3, false, ":status: 200") },
		"RST too late":      func(p *server) { p.frames.WriteRSTStream(3, 0) },
		"a wrong increment": func(p *server) { p.frames.WriteRawFrame(http2.FrameWindowUpdate, 0, 3, make([]byte, 4)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := greeted(t, 2)
			p.headers(1, false, ":status: 200")
			p.feed()
			p.c.Done(p.calls[3])
			for i := range 2 * serverFrames {
				c(p)
				if err := p.feed(); err != nil {
					if got := p.got(); !has(got, "GOAWAY 0 ENHANCE_YOUR_CALM") {
						t.Errorf("after %d: %v; the server hears %v", i, err, got)
					}
					return
				}
				if len(p.c.out) > 1<<10 {
					p.c.Take(nil)
				}
			}
			t.Error("still listened to")
		})
	}
}

// A server of large uploads gives room back all the time.
func TestWhoTakesMuchMayUpdateWindows(t *testing.T) {
	p := greeted(t, 1)
	for range 10 * serverFrames {
		if n, err := p.c.Data(p.calls[1], make([]byte, 1000), false); n != 1000 || err != nil {
			t.Fatalf("%d bytes taken, %v", n, err)
		}
		p.c.Take(nil)
		p.frames.WriteWindowUpdate(0, 1000)
		p.frames.WriteWindowUpdate(1, 1000)
		if err := p.feed(); err != nil {
			t.Fatal(err)
		}
	}
}

// A server may shrink the window of a stream below nothing (RFC 9113, 6.9.2). The end of a
// request needs none.
func TestAnEndNeedsNoWindow(t *testing.T) {
	p := greeted(t, 1)
	s := p.calls[1]
	if n, _ := p.c.Data(s, make([]byte, 1000), false); n != 1000 {
		t.Fatalf("%d bytes taken", n)
	}
	p.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	p.feed()
	p.c.Take(nil)
	if n, err := p.c.Data(s, []byte("x"), true); n != 0 || err != nil || s.Sent() {
		t.Errorf("%d bytes taken, %v, into less than no window", n, err)
	}
	if n, err := p.c.Data(s, nil, true); n != 0 || err != nil || !s.Sent() {
		t.Errorf("the end is not sent: %d, %v", n, err)
	}
	if got := p.got(); len(got) != 1 || got[0] != "DATA 1 0 true" {
		t.Errorf("the server hears %v", got)
	}
}

func TestWindowsOfRequests(t *testing.T) {
	p := greeted(t, 2)
	body := make([]byte, 200_000)
	taken := 0
	for range 2 { // what waits to be sent is bounded, too
		n, _ := p.c.Data(p.calls[1], body, true)
		taken += n
		p.c.Take(nil)
	}
	if taken != startWindow {
		t.Errorf("%d bytes taken, want the window of the stream", taken)
	}
	p.frames.WriteWindowUpdate(1, 1000)
	p.feed()
	if n, _ := p.c.Data(p.calls[1], body, true); n != 0 {
		t.Errorf("%d bytes taken, want none: the window of the connection is shut", n)
	}
	before := p.woken[3]
	p.frames.WriteWindowUpdate(0, 500)
	p.feed()
	if n, _ := p.c.Data(p.calls[1], body, true); n != 500 || p.woken[3] == before {
		t.Errorf("%d bytes taken, stream 3 woken: %v", n, p.woken[3] > before)
	}
	p.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 70_000}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	p.feed()
	if n, _ := p.c.Data(p.calls[3], body, true); n != 0 {
		t.Errorf("%d bytes taken into no window", n)
	}
}

func TestRoomForAnswersIsGivenBack(t *testing.T) {
	p := greeted(t, 1)
	s := p.calls[1]
	p.headers(1, false, ":status: 200")
	buf := make([]byte, frameBytes)
	updates := 0
	for range 2000 { // 32 MB
		p.frames.WriteData(1, false, buf)
		if err := p.feed(); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := p.c.Read(s, buf)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		updates += len(p.got())
	}
	if updates < 1000 || updates > 1100 {
		t.Errorf("%d WINDOW_UPDATE", updates)
	}
}

func TestStreamsAtOnceAreTheServersToSay(t *testing.T) {
	p := newServer(t)
	p.frames.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
	p.feed()
	p.ask(dataplane.GET, true)
	if !p.c.Reserve() || p.c.Reserve() {
		t.Error("want room for one more stream")
	}
	p.c.Release()
	p.c.Done(p.calls[1])
	if !p.c.Reserve() {
		t.Error("the place of a stream that has ended is not free")
	}
	p.frames.WriteGoAway(1, http2.ErrCodeNo, nil)
	p.feed()
	if p.c.Reserve() {
		t.Error("a stream is opened behind GOAWAY")
	}
	if q := (&dataplane.Request{Method: dataplane.GET, MethodText: []byte("GET"), Path: []byte("/")}); p.c.Ask(&Call{}, q, "http", true) {
		t.Error("a place that was taken before GOAWAY is used")
	}
	if p.c.Over() {
		t.Error("over with a place that is taken")
	}
	if p.c.Release(); !p.c.Over() {
		t.Error("not over")
	}
}

func TestPingsAreAnsweredByWhoIsAsked(t *testing.T) {
	p := greeted(t, 1)
	p.c.Ping()
	p.c.Ping()
	if got := p.got(); len(got) != 1 || !p.c.Pinged() || p.c.Reserve() {
		t.Errorf("sent %v; asked: %v", got, p.c.Pinged())
	}
	p.frames.WritePing(true, [8]byte{1})
	if p.feed(); !p.c.Pinged() {
		t.Error("an answer to another question is taken for ours")
	}
	p.frames.WritePing(true, alive)
	if p.feed(); p.c.Pinged() {
		t.Error("the answer is not taken")
	}
}

func TestAnswersToHEADHaveNoBody(t *testing.T) {
	p := greeted(t, 0)
	s := p.ask(dataplane.HEAD, true)
	p.headers(1, true, ":status: 200", "content-length: 5")
	if err := p.feed(); err != nil {
		t.Fatal(err)
	}
	if got := p.answer(s); got != "200 end" || !s.Empty() {
		t.Errorf("got %s", got)
	}
	s = p.ask(dataplane.HEAD, true)
	p.headers(3, false, ":status: 200", "content-length: 5")
	p.frames.WriteData(3, true, []byte("12345"))
	p.feed()
	if got := p.answer(s); got != "200 content_length" {
		t.Errorf("with a body: got %s", got)
	}
}

func TestHeadsAreAskedInTheirForm(t *testing.T) {
	p := greeted(t, 0)
	q := &dataplane.Request{Method: dataplane.POST, MethodText: []byte("POST"), Path: []byte("/a"), Query: []byte("b"), Length: -1}
	for _, f := range []struct {
		id          dataplane.FieldID
		name, value string
	}{
		{dataplane.Host, "Host", "a.example"}, {dataplane.Connection, "Connection", "close"}, {dataplane.TransferEncoding, "Transfer-Encoding", "chunked"},
		{dataplane.TE, "TE", "gzip"}, {dataplane.Upgrade, "Upgrade", "x"}, {dataplane.ContentLength, "Content-Length", "5"}, {0, "X-Big", strings.Repeat("~", 20_000)},
	} {
		q.Header = append(q.Header, dataplane.Field{ID: f.id, Name: []byte(f.name), Value: []byte(f.value)})
	}
	p.c.Reserve()
	if !p.c.Ask(&Call{}, q, "https", false) {
		t.Fatal("not asked")
	}
	fr := http2.NewFramer(nil, bytes.NewReader(p.c.Take(nil)))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f, err := fr.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range f.(*http2.MetaHeadersFrame).Fields {
		got = append(got, f.Name)
	}
	if want := ":method :scheme :authority :path x-big te"; strings.Join(got, " ") != want {
		t.Errorf("fields %v, want %s", got, want)
	}
}
