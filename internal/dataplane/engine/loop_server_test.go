package engine

import "testing"

// A request comes, and then bytes on the idle connection that would be used for it. The
// loop hears of both at once. The bytes are nobody's answer (A9, A11).
func TestSurplusOfAnIdleConnectionIsNobodysAnswer(t *testing.T) {
	const ok = `"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n"`
	s := newStage(t, func(c Config) Engine { c.Loops = 1; return NewLoop(c) }, func(s *stage, _ *Config) { s.waited = true })
	s.play(`
		c> "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
		s+
		s< "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
		s> ` + ok + `
		c< ` + ok + `
		h "end ok"
		seen`)
	release := s.hold()
	s.play(`
		c> "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
		s> "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 6\r\n\r\npoison"`)
	release()
	s.play(`
		s<over
		s+
		s< "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
		s> ` + ok + `
		c< ` + ok + `
		h "end ok"`)
}
