package proxy

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/config"
)

// An h2Peer is a client of HTTP/2, frame by frame.
type h2Peer struct {
	t     *testing.T
	conn  net.Conn
	fr    *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func dialH2(t *testing.T, address string, settings ...http2.Setting) *h2Peer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return speakH2(t, conn, settings...)
}

// speakH2 begins to speak HTTP/2 on a connection, which the test's end closes.
func speakH2(t *testing.T, conn net.Conn, settings ...http2.Setting) *h2Peer {
	t.Cleanup(func() { conn.Close() })
	p := &h2Peer{t: t, conn: conn}
	p.fr = http2.NewFramer(conn, conn)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.enc = hpack.NewEncoder(&p.block)
	io.WriteString(conn, http2.ClientPreface)
	p.fr.WriteSettings(settings...)
	return p
}

func (p *h2Peer) ask(id uint32, last bool, fields ...string) {
	p.block.Reset()
	for _, f := range fields {
		at := strings.Index(f[1:], ": ") + 1
		p.enc.WriteField(hpack.HeaderField{Name: f[:at], Value: f[at+2:]})
	}
	p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block.Bytes(), EndHeaders: true, EndStream: last})
}

// next returns the next frame that is about a stream.
func (p *h2Peer) next() http2.Frame {
	p.t.Helper()
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			p.t.Fatal(err)
		}
		switch f.(type) {
		case *http2.MetaHeadersFrame, *http2.DataFrame, *http2.RSTStreamFrame:
			return f
		}
	}
}

// What was broken off is logged for what it is, whatever version of HTTP the client spoke and
// whoever broke it off.
func TestAnswersThatAreBrokenOffAreLogged(t *testing.T) {
	const size = 8 << 20
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "large"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(make([]byte, size))
	})
	cut := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(make([]byte, 1000))
	})
	for what, c := range map[string]struct {
		conf   *config.Config
		reason string
		itself bool // it breaks off by itself
	}{
		"an answer":          {to(t, "", whole), "client_gone", false},
		"a file":             {parsed(t, "[listener.web]\naddress = \"127.0.0.1:8080\"\n[[route]]\nname = \"files\"\nfiles = { root = \""+folder+"\" }\n"), "client_gone", false},
		"a server's own cut": {to(t, "", cut), "broken", true},
	} {
		c.conf.Listener["web"].H2C = true
		for way, broken := range map[string]func(conn net.Conn, p *h2Peer){
			"HTTP/2, by RST_STREAM":         func(_ net.Conn, p *h2Peer) { p.fr.WriteRSTStream(1, http2.ErrCodeCancel) },
			"HTTP/2, by the connection":     func(conn net.Conn, _ *h2Peer) { conn.Close() },
			"HTTP/2, by a reset connection": func(conn net.Conn, _ *h2Peer) { conn.(*net.TCPConn).SetLinger(0); conn.Close() },
			"HTTP/1.1":                      func(conn net.Conn, _ *h2Peer) { conn.Close() },
		} {
			t.Run(what+", "+way, func(t *testing.T) {
				w := newWhole(t, c.conf)
				if way == "HTTP/1.1" {
					conn, err := net.Dial("tcp", w.address)
					if err != nil {
						t.Fatal(err)
					}
					io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
					io.ReadFull(conn, make([]byte, 1000))
					if !c.itself {
						broken(conn, nil)
					}
				} else {
					p := dialH2(t, w.address)
					p.ask(1, true, ":method: GET", ":scheme: http", ":authority: h", ":path: /large")
					p.next()
					if !c.itself {
						broken(p.conn, p)
					}
				}
				line := w.firstLine()
				if !strings.Contains(line, `"status":200`) || !strings.Contains(line, `"reason":"`+c.reason+`"`) {
					t.Errorf("logged: %s, want status 200 and the reason %s", line, c.reason)
				}
			})
		}
	}
}

// firstLine waits for the first line of the access log.
func (w *whole) firstLine() string {
	w.t.Helper()
	for begun := time.Now(); time.Since(begun) < patience; runtime.Gosched() {
		if line, _, whole := strings.Cut(w.log.String(), "\n"); whole {
			return line
		}
	}
	w.t.Fatal("nothing was logged")
	return ""
}
