package accesslog

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strconv"
	"time"
)

const (
	devLog = "/dev/log"

	// priority is facility local0, severity informational (RFC 5424, 6.2.1).
	priority = "<134>1 "

	// maxDatagram is the longest message that is sent: what fits into UDP with room for
	// any header.
	maxDatagram = 60000

	syslogPatience = time.Second // for a connection, and for one message
	syslogPause    = time.Second // after a connection that failed
)

// A syslog is an output that sends each line as a datagram (RFC 5424), to a Unix socket
// or by UDP. The receiver may be away for a while; what is sent meanwhile is lost.
type syslog struct {
	network, address string
	head             []byte // behind the time: host, program, process
	conn             net.Conn
	refused          time.Time // when the last connection failed
	message          []byte
}

var (
	errSyslogAway = errors.New("syslog: nobody there")
	errTooLong    = errors.New("syslog: the line is too long for a datagram")
)

func newSyslog(network, address, node string) *syslog {
	return &syslog{network: network, address: address, head: []byte(" " + node + " proxyd " + strconv.Itoa(os.Getpid()) + " access - ")}
}

func (s *syslog) write(lines []byte) (lost int, err error) {
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n')
		failed := s.send(lines[:end])
		lines = lines[end+1:]
		if failed == nil {
			continue
		}
		lost++
		err = failed
		if !errors.Is(failed, errTooLong) { // the others would only wait in vain
			return lost + bytes.Count(lines, newline), err
		}
	}
	return lost, err
}

// send sends one line. A connection that turns out to be dead is replaced once.
func (s *syslog) send(line []byte) error {
	m := append(s.message[:0], priority...)
	m = time.Now().UTC().AppendFormat(m, "2006-01-02T15:04:05.000000Z07:00")
	m = append(append(m, s.head...), line...)
	s.message = m
	if len(m) > maxDatagram {
		return errTooLong
	}
	for again := false; ; again = true {
		if err := s.dial(); err != nil {
			return err
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(syslogPatience)) // the write will say it
		_, err := s.conn.Write(m)
		if err == nil {
			return nil
		}
		s.conn.Close()
		s.conn = nil
		if again || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

func (s *syslog) dial() (err error) {
	if s.conn != nil {
		return nil
	}
	if time.Since(s.refused) < syslogPause {
		return errSyslogAway
	}
	if s.conn, err = net.DialTimeout(s.network, s.address, syslogPatience); err != nil {
		s.conn, s.refused = nil, time.Now()
	}
	return err
}

func (s *syslog) reopen() error {
	if s.conn != nil {
		s.conn.Close()
	}
	s.conn, s.refused = nil, time.Time{}
	return nil
}

func (s *syslog) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}
