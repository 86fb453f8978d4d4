// Package baton passes what a process has to the one that takes its place: open sockets and
// what it knows, over a Unix socket between the two.
package baton

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Line is one end of the connection between the process that goes and the one that
// comes. One goroutine may send and another receive.
//
// A message is
//
//	length 4, big-endian | JSON of envelope
//
// with the descriptors of its files attached to the length. Fields that are not known are
// skipped: the two processes are of two releases.
type Line struct{ conn *net.UnixConn }

// A File is an open file under the name by which the other side asks for it.
type File struct {
	Name string
	File *os.File
}

// A Message is what came over a Line. The files are the receiver's.
type Message struct {
	Kind  string
	Body  json.RawMessage
	Files []File
}

// envelope is a Message on its way.
type envelope struct {
	Kind  string          `json:"kind"`
	Files []string        `json:"files,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

const (
	// maxMessage bounds what one message makes the receiver allocate.
	maxMessage = 64 << 20
	// maxFiles go with one message; the kernel takes 253 (SCM_MAX_FD).
	maxFiles = 128
	// moreKind is of messages that bring files alone, which belong to the next one.
	moreKind = "more"
	// totalFiles bounds what a sender can make the receiver hold open.
	totalFiles = 1 << 16
)

// ErrMessage is wrapped by what Receive returns for bytes that are no message.
var ErrMessage = errors.New("baton message")

// Pair returns a Line and the file that makes the other end of it, for a child: see At. The
// caller closes both.
func Pair() (*Line, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "baton"), os.NewFile(uintptr(fds[1]), "baton")
	l, err := lineOf(near)
	if err != nil {
		far.Close()
		return nil, nil, err
	}
	return l, far, nil
}

// At returns the Line whose file was inherited as descriptor fd, which is taken over.
func At(fd int) (*Line, error) {
	unix.CloseOnExec(fd)
	// Non-blocking files stay so when os.File gives their number away.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return lineOf(os.NewFile(uintptr(fd), "baton"))
}

func lineOf(f *os.File) (*Line, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("baton: a %T is no Unix socket", c)
	}
	return &Line{u}, nil
}

// Over returns the Line over a connected Unix socket, which is taken over.
func Over(c *net.UnixConn) *Line { return &Line{c} }

// Close closes this end. What was sent before still arrives.
func (l *Line) Close() error { return l.conn.Close() }

// Peer returns the process and the user at the other end.
func (l *Line) Peer() (pid, uid int, err error) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return 0, 0, err
	}
	return int(cred.Pid), int(cred.Uid), nil
}

// Send sends a message with copies of files, which stay the caller's. body may be nil. It
// returns when the kernel has it, within d.
func (l *Line) Send(d time.Duration, kind string, body any, files ...File) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(d))
	for len(files) > maxFiles {
		if err := l.send(envelope{Kind: moreKind}, files[:maxFiles]); err != nil {
			return err
		}
		files = files[maxFiles:]
	}
	e := envelope{Kind: kind}
	if body != nil {
		var err error
		if e.Body, err = json.Marshal(body); err != nil {
			return fmt.Errorf("baton: send %s: %w", kind, err)
		}
	}
	return l.send(e, files)
}

func (l *Line) send(e envelope, files []File) error {
	var fds []int
	for _, f := range files {
		raw, err := f.File.SyscallConn()
		if err != nil {
			return fmt.Errorf("baton: send %s: %s: %w", e.Kind, f.Name, err)
		}
		// The kernel takes its own reference when the message is sent, and the caller keeps
		// the file open until then.
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return fmt.Errorf("baton: send %s: %s: %w", e.Kind, f.Name, err)
		}
		e.Files = append(e.Files, f.Name)
	}
	text, err := json.Marshal(e)
	if err == nil && len(text) > maxMessage {
		err = fmt.Errorf("%w: %d bytes are too many", ErrMessage, len(text))
	}
	if err != nil {
		return fmt.Errorf("baton: send %s: %w", e.Kind, err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	if n, _, err := l.conn.WriteMsgUnix(head, rights, nil); err != nil || n < len(head) {
		return fmt.Errorf("baton: send %s: %w", e.Kind, errors.Join(err, shortIf(n < len(head))))
	}
	if _, err := l.conn.Write(text); err != nil {
		return fmt.Errorf("baton: send %s: %w", e.Kind, err)
	}
	return nil
}

func shortIf(short bool) error {
	if short {
		return io.ErrShortWrite
	}
	return nil
}

// Receive waits for a message, for d at the most. The error is io.EOF if the other side has
// gone, and os.ErrDeadlineExceeded if nothing came.
func (l *Line) Receive(d time.Duration) (Message, error) {
	_ = l.conn.SetReadDeadline(time.Now().Add(d))
	var m Message
	for {
		e, files, err := l.receive()
		m.Files = append(m.Files, files...)
		if err == nil && len(m.Files) > totalFiles {
			err = fmt.Errorf("%w: too many files", ErrMessage)
		}
		if err != nil {
			CloseFiles(m.Files)
			return Message{}, err
		}
		if e.Kind != moreKind {
			m.Kind, m.Body = e.Kind, e.Body
			return m, nil
		}
	}
}

func (l *Line) receive() (e envelope, files []File, err error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(head[:], oob)
	var open []*os.File
	defer func() {
		if err != nil {
			for _, f := range open {
				f.Close()
			}
		}
	}()
	if oobn > 0 {
		var bad error
		if open, bad = filesIn(oob[:oobn]); err == nil {
			err = bad
		}
	}
	switch {
	case err != nil:
		return e, nil, err
	case n == 0:
		return e, nil, io.EOF
	case flags&unix.MSG_CTRUNC != 0:
		return e, nil, fmt.Errorf("%w: files were lost on the way", ErrMessage)
	}
	if _, err = io.ReadFull(l.conn, head[n:]); err != nil {
		return e, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxMessage {
		return e, nil, fmt.Errorf("%w: %d bytes are too many", ErrMessage, size)
	}
	text, err := io.ReadAll(io.LimitReader(l.conn, int64(size)))
	if err == nil && len(text) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return e, nil, err
	}
	if err = json.Unmarshal(text, &e); err != nil {
		return e, nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if len(e.Files) != len(open) {
		return e, nil, fmt.Errorf("%w: %d files under %d names", ErrMessage, len(open), len(e.Files))
	}
	for i, f := range open {
		files = append(files, File{e.Files[i], f})
	}
	return e, files, nil
}

// filesIn takes the files out of a control message. Those of a bad one are closed with the
// rest by the caller.
func filesIn(oob []byte) (open []*os.File, err error) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	for _, m := range all {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return open, fmt.Errorf("%w: %w", ErrMessage, err)
		}
		for _, fd := range fds {
			open = append(open, os.NewFile(uintptr(fd), "inherited"))
		}
	}
	return open, nil
}

// CloseFiles closes all of files.
func CloseFiles(files []File) {
	for _, f := range files {
		f.File.Close()
	}
}
