package engine

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// pipeBytes is how much a pipe for splice(2) is to hold.
const pipeBytes = 256 << 10

// A pipe is where bytes are on their way between two sockets without being copied.
type pipe struct{ r, w int }

// pipes is a cache without a meaning of its own. What it drops is closed.
var pipes = sync.Pool{New: func() any { return newPipe() }}

// newPipe returns nil if there are no files left.
func newPipe() *pipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	// Without permission for more, what a pipe holds by default will do.
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeBytes)
	p := &pipe{r: fds[0], w: fds[1]}
	runtime.SetFinalizer(p, (*pipe).close)
	return p
}

func (p *pipe) close() {
	runtime.SetFinalizer(p, nil)
	unix.Close(p.r)
	unix.Close(p.w)
}

// A spliceError says on which side splice failed.
type spliceError struct {
	writing bool
	err     error
}

func (e *spliceError) Error() string { return e.err.Error() }
func (e *spliceError) Unwrap() error { return e.err }

// errNoPipe says that nothing was moved and that the bytes must be copied.
var errNoPipe = errors.New("no pipe")

// splice moves up to n bytes from src to dst in the kernel (splice(2)). It returns how
// many dst took; fewer than n come with a *spliceError, which is io.EOF on the reading
// side when src has ended. note is called after each part.
func splice(dst, src *wire, n int64, to, from *limit, note func(int64)) (moved int64, err error) {
	p, _ := pipes.Get().(*pipe)
	if p == nil {
		return 0, errNoPipe
	}
	for moved < n {
		got, err := src.spliceIn(p, min(n-moved, pipeBytes), from)
		if err != nil {
			pipes.Put(p)
			return moved, &spliceError{err: err}
		}
		to.since = now()
		from.since = to.since
		for left := got; left > 0; {
			took, err := dst.spliceOut(p, left, to)
			if err != nil {
				p.close() // with what is left in it
				return moved + got - left, &spliceError{writing: true, err: err}
			}
			left -= took
		}
		moved += got
		note(got)
	}
	pipes.Put(p)
	return moved, nil
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// spliceIn moves what there is to read, up to n bytes, into p, which is empty.
func (w *wire) spliceIn(p *pipe, n int64, l *limit) (got int64, err error) {
	var fault error
	err = w.await(&w.in, func(fd uintptr) bool {
		for {
			got, fault = unix.Splice(int(fd), nil, p.w, nil, int(n), spliceFlags)
			if fault != unix.EINTR {
				break
			}
		}
		w.in.n = int(max(got, 0))
		return fault != unix.EAGAIN
	}, l)
	switch {
	case err != nil:
		return 0, err
	case fault != nil:
		return 0, os.NewSyscallError("splice", fault)
	case got == 0:
		return 0, io.EOF
	}
	return got, nil
}

// spliceOut moves up to n bytes of those in p to the socket.
func (w *wire) spliceOut(p *pipe, n int64, l *limit) (took int64, err error) {
	var fault error
	step := func(fd uintptr) bool {
		for {
			took, fault = unix.Splice(p.r, nil, int(fd), nil, int(n), spliceFlags)
			if fault != unix.EINTR {
				break
			}
		}
		if fault == unix.EAGAIN {
			return false
		}
		w.out.n = int(max(took, 0))
		return true
	}
	w.out.n = 0
	if !step(w.fd) {
		w.out.n = int(unacknowledged(w.fd))
		if err = w.await(&w.out, step, l); err != nil {
			return 0, err
		}
	}
	if fault != nil {
		return 0, os.NewSyscallError("splice", fault)
	}
	return took, nil
}
