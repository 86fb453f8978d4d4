package upstream

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
)

func TestTheRequestOfACheck(t *testing.T) {
	for _, c := range []struct {
		why  string
		conf config.Check
		want string
	}{
		{"plain", config.Check{Path: "/"},
			"GET / HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\nUser-Agent: proxyd-check\r\nConnection: close\r\n\r\n"},
		{"all of it", config.Check{Method: "POST", Path: "/h?x=1", Host: "app", Header: map[string]string{"x-key": "k", "user-agent": "me"}, Body: "ping"},
			"POST /h?x=1 HTTP/1.1\r\nHost: app\r\nAccept: */*\r\nContent-Length: 4\r\nUser-Agent: me\r\nX-Key: k\r\nConnection: close\r\n\r\nping"},
		{"tcp", config.Check{Type: "tcp", Send: "PING\r\n"}, "PING\r\n"},
	} {
		q, err := newQuestion(&config.Pool{Check: &c.conf})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(q.appendRequest(nil, "a:80")); got != c.want {
			t.Errorf("%s: asks %q, want %q", c.why, got, c.want)
		}
	}
}

// A check of a pool with proxy_protocol is our own connection, and says so; at another
// port there is another service.
func TestAChecksConnectionIsOurOwn(t *testing.T) {
	for _, c := range []struct {
		version, port int
		want          string
	}{
		{0, 0, "PING\r\n"},
		{1, 0, "PROXY UNKNOWN\r\nPING\r\n"},
		{2, 0, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00PING\r\n"},
		{2, 8081, "PING\r\n"},
	} {
		q, err := newQuestion(&config.Pool{Proxied: c.version, Check: &config.Check{Type: "tcp", Send: "PING\r\n", Port: c.port}})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(q.appendRequest(q.hello, "a:80")); got != c.want {
			t.Errorf("version %d, port %d: it says %q, want %q", c.version, c.port, got, c.want)
		}
	}
}

// judged returns what a check makes of an answer that comes as a reader gives it.
func judged(t testing.TB, conf config.Check, answer io.Reader) string {
	q, err := newQuestion(&config.Pool{Check: &conf})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 100)
	conn := readConn{Reader: answer}
	if q.Type == "tcp" {
		return q.judgeTCP(conn, &buf)
	}
	return q.judgeHTTP(conn, &buf)
}

type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

func TestWhichAnswersAreGood(t *testing.T) {
	const lacks = "the body lacks what must match"
	long := strings.Repeat("x", maxAnswer-2)
	for _, c := range []struct {
		why    string
		conf   config.Check
		answer string
		want   string
	}{
		{"status in the ranges", config.Check{Status: "200-204,301"}, "HTTP/1.1 301 Moved\r\n\r\n", ""},
		{"status between the ranges", config.Check{Status: "200-204,301"}, "HTTP/1.1 300 Choices\r\n\r\n", "status 300"},
		{"interim responses first", config.Check{}, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""},
		{"interim responses without end", config.Check{}, strings.Repeat("HTTP/1.1 103 Hints\r\n\r\n", 20), "no acceptable HTTP: interim_flood"},
		{"ends within the head", config.Check{}, "HTTP/1.1 200 OK\r\nContent-Le", "read: unexpected EOF"},
		{"ends before the head", config.Check{}, "", "read: unexpected EOF"},
		{"no HTTP", config.Check{}, "OK\r\n", "no acceptable HTTP: status_line"},
		{"two lengths", config.Check{}, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "no acceptable HTTP: content_length_twice"},
		{"length and chunks", config.Check{}, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", "no acceptable HTTP: cl_te"},
		{"text in a counted body", config.Check{Match: "ready"}, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nI am ready!", ""},
		{"text behind a counted body", config.Check{Match: "ready"}, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nI am ready!", lacks},
		{"text in the head alone", config.Check{Match: "ready"}, "HTTP/1.1 200 OK\r\nX: ready\r\nContent-Length: 2\r\n\r\nno", lacks},
		{"text cut by chunks", config.Check{Match: "ready"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n", ""},
		{"text not in the chunks", config.Check{Match: "ready"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n0\r\n\r\n", lacks},
		{"chunks that are none", config.Check{Match: "ready"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nready", "no acceptable HTTP: "},
		{"text up to the end", config.Check{Match: "ready"}, "HTTP/1.0 200 OK\r\n\r\nready", ""},
		{"a body that breaks off", config.Check{Match: "ready"}, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nrea", "read: unexpected EOF"},
		{"chunks that break off", config.Check{Match: "ready"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nrea", "read: unexpected EOF"},
		{"expression", config.Check{Match: "~^(ok|ready)$"}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""},
		{"expression sees the whole body", config.Check{Match: "~^(ok|ready)$"}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nokay!", lacks},
		{"within 64 KiB", config.Check{Match: "ok"}, "HTTP/1.0 200 OK\r\n\r\n" + long + "ok", ""},
		{"across 64 KiB", config.Check{Match: "xok"}, "HTTP/1.0 200 OK\r\n\r\n" + long + "xok", lacks},
		{"no body at all", config.Check{Match: "ok"}, "HTTP/1.1 204 No Content\r\n\r\nok", lacks},
		{"status before body", config.Check{Match: "ok"}, "HTTP/1.1 500 Broken\r\nContent-Length: 2\r\n\r\nok", "status 500"},

		{"tcp: a connection is enough", config.Check{Type: "tcp"}, "", ""},
		{"tcp: text", config.Check{Type: "tcp", Expect: "PONG"}, "+PONG\r\n", ""},
		{"tcp: other text", config.Check{Type: "tcp", Expect: "PONG"}, "-ERR\r\n", "the answer lacks what is expected"},
		{"tcp: expression", config.Check{Type: "tcp", Expect: "~^SSH-2"}, "SSH-2.0-x\r\n", ""},
		{"tcp: too far back", config.Check{Type: "tcp", Expect: "PONG"}, long + "PONG", "the answer lacks what is expected"},
	} {
		for how, reader := range map[string]io.Reader{"whole": strings.NewReader(c.answer), "byte by byte": iotest.OneByteReader(strings.NewReader(c.answer))} {
			if got := judged(t, c.conf, reader); got != c.want && !(strings.HasSuffix(c.want, ": ") && strings.HasPrefix(got, c.want)) {
				t.Errorf("%s, %s: %q, want %q", c.why, how, got, c.want)
			}
		}
	}
}

func TestAHeadCheckExpectsNoBody(t *testing.T) {
	conf := config.Check{Method: "HEAD"}
	if got := judged(t, conf, strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")); got != "" {
		t.Error(got)
	}
}

func TestACheckAsksAtItsPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.set(ok)
		p, w := checked(t, s, func(c *config.Check) { c.Port = 9000 })
		defer w.Close()
		time.Sleep(time.Second)
		if got := s.to.Load().(string); stateOf(p) != "up" || got != "10.0.0.1:9000" {
			t.Errorf("%s, asked at %s", stateOf(p), got)
		}
	})
}

func TestASilentTCPServerFailsItsCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.hang.Store(true)
		p, w := checked(t, s, func(c *config.Check) { c.Type, c.Send, c.Expect = "tcp", "PING", "PONG" })
		defer w.Close()
		time.Sleep(3 * time.Second)
		if state, why := p.servers[0].State(); state != "down" || why != "read: timed out" {
			t.Errorf("%s, %q", state, why)
		}
	})
}

// Whatever a server says, a check ends, and how the bytes were cut does not matter.
func FuzzAnswerOfACheck(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 103 H\r\n\r\nHTTP/1.0 200 OK\r\n\r\nready"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, conf := range []config.Check{{}, {Match: "ready"}, {Match: "~^ready$"}, {Type: "tcp", Expect: "ready"}, {Method: "HEAD"}} {
			whole := judged(t, conf, bytes.NewReader(answer))
			bits := judged(t, conf, iotest.OneByteReader(bytes.NewReader(answer)))
			if whole != bits {
				t.Errorf("%+v: %q at once, %q byte by byte", conf, whole, bits)
			}
		}
	})
}
