package engine

import (
	"fmt"
	"testing"
)

// A kept connection is reset when all but the last of a request has gone out on it. The
// request has its answer from a new connection, and the client's can be used again.
func TestTheEndOfABodyMeetsAConnectionThatHasEnded(t *testing.T) {
	const ok = `"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n"`
	for _, body := range []struct{ name, field, first, last, whole string }{
		{"sized", "Content-Length: 10", "hello", "world", "helloworld"},
		{"chunked", "Transfer-Encoding: chunked", `5\r\nhello\r\n`, `5\r\nworld\r\n0\r\n\r\n`, `5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n`},
	} {
		for name, engine := range map[string]func(Config) Engine{
			"loop":      func(c Config) Engine { return NewLoop(c) },
			"goroutine": func(c Config) Engine { return New(c) },
		} {
			t.Run(body.name+"/"+name, func(t *testing.T) {
				s := newStage(t, engine, func(s *stage, _ *Config) { s.waited = true })
				head := fmt.Sprintf(`"PUT / HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n"`, body.field)
				s.play(`
					c> "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
					s+
					s< "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
					s> ` + ok + `
					c< ` + ok + `
					h "end ok"
					c> ` + head + `
					s< ` + head + `
					c> "` + body.first + `"
					s< "` + body.first + `"`)
				release := func() {}
				if name == "loop" {
					release = s.hold() // so that the body's event comes first
					s.play(`c> "` + body.last + `"`)
				}
				s.play(`s>reset`)
				release()
				if name != "loop" {
					s.play(`c> "` + body.last + `"`)
				}
				s.play(`
					s+
					s< ` + head + ` "` + body.whole + `"
					s> ` + ok + `
					c< ` + ok + `
					h "end ok"`)
			})
		}
	}
}
