package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawH2Server is a server of HTTP/2 in clear that says settings, and then what says has it say
// of the head of each stream.
func rawH2Server(t *testing.T, settings []http2.Setting, says func(fr *http2.Framer, id uint32, path string)) string {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(c, c)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		fr.WriteSettings(settings...)
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					fr.WriteSettingsAck()
				}
			case *http2.MetaHeadersFrame:
				says(fr, f.StreamID, f.PseudoValue("path"))
			}
		}
	}
	go func() {
		for {
			c, err := socket.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return socket.Addr().String()
}

func answerHead(status string) []byte {
	var b strings.Builder
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: status})
	return []byte(b.String())
}

// A server that has answered wants no more of a request, and says so with RST_STREAM: its answer
// counts (RFC 9113, 8.1), whatever of the body is on its way.
func TestAnAnswerBeforeTheEndOfARequestIsPassedOn(t *testing.T) {
	var asked atomic.Int32
	origin := rawH2Server(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(fr *http2.Framer, id uint32, path string) {
		status := "200"
		if path == "/large" {
			asked.Add(1)
			status = "413"
		}
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: answerHead(status), EndHeaders: true, EndStream: true})
		if path == "/large" {
			fr.WriteRSTStream(id, http2.ErrCodeNo)
		}
	})
	c := to(t, `protocol = "h2c"`, origin)
	w := newWhole(t, c)
	if r, err := w.client.Get("http://" + w.address + "/first"); err != nil || r.StatusCode != 200 { // its settings are here then
		t.Fatal(r, err)
	}
	for name, body := range map[string]io.Reader{
		"of known length": strings.NewReader(strings.Repeat("x", 500<<10)),
		"in chunks":       io.MultiReader(strings.NewReader(strings.Repeat("x", 500<<10))),
	} {
		r, err := w.client.Post("http://"+w.address+"/large", "text/plain", body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d, want the server's 413", name, r.StatusCode)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the server was asked %d times, want twice", n)
	}
}

// What a server refuses as it leaves (a stream above the last one of its GOAWAY) is asked again on
// another connection, whatever its method.
func TestWhatAServerRefusesIsAskedAgain(t *testing.T) {
	for name, refuse := range map[string]func(fr *http2.Framer, id uint32){
		"GOAWAY":         func(fr *http2.Framer, id uint32) { fr.WriteGoAway(id-2, http2.ErrCodeNo, nil) },
		"REFUSED_STREAM": func(fr *http2.Framer, id uint32) { fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			origin := rawH2Server(t, nil, func(fr *http2.Framer, id uint32, _ string) {
				if asked.Add(1) == 2 {
					refuse(fr, id)
					return
				}
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: answerHead("204"), EndHeaders: true, EndStream: true})
			})
			w := newWhole(t, to(t, `protocol = "h2c"`, origin))
			for range 2 {
				r, err := w.client.Post("http://"+w.address+"/", "text/plain", strings.NewReader("body"))
				if err != nil || r.StatusCode != 204 {
					t.Fatal(r, err)
				}
			}
			if n := asked.Load(); n != 3 {
				t.Errorf("the server was asked %d times, want 3", n)
			}
		})
	}
}
