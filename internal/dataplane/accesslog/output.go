package accesslog

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"proxyd/internal/config"
)

// An output takes lines. One goroutine calls it. An output that fails is tried again at
// the next write: it recovers by itself.
type output interface {
	// write writes whole lines, and returns how many of them are lost, and why.
	write(lines []byte) (lost int, err error)
	// reopen begins anew under the same name.
	reopen() error
	close() error
}

// openOutput opens what c says. A file must be there to be written to now; a syslog may
// come later.
func openOutput(c config.Access, node string, stdout io.Writer) (output, error) {
	to, isSyslog := strings.CutPrefix(c.Output, "syslog:")
	switch {
	case isSyslog && to == "":
		return newSyslog("unixgram", devLog, node), nil
	case isSyslog && filepath.IsAbs(to):
		return newSyslog("unixgram", to, node), nil
	case isSyslog:
		if _, _, err := net.SplitHostPort(to); err != nil {
			return nil, fmt.Errorf("access log: syslog: %w", err)
		}
		return newSyslog("udp", to, node), nil
	case c.Output == "" || c.Output == "stdout":
		return stream{stdout}, nil
	}
	f, err := openFile(c.Output, c.Rotate)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return f, nil
}

// A stream is an output that cannot be opened again.
type stream struct{ w io.Writer }

func (s stream) write(lines []byte) (lost int, err error) {
	n, err := s.w.Write(lines)
	if err != nil {
		lost = bytes.Count(lines[n:], newline)
	}
	return lost, err
}

func (stream) reopen() error { return nil }
func (stream) close() error  { return nil }
