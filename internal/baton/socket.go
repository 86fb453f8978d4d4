package baton

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Copy returns a second descriptor of the socket that c is, under a name. The caller closes
// it. Unlike c's own File method it never makes the socket blocking, which its other holder
// would feel.
func Copy(name string, c syscall.Conn) (File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return File{}, fmt.Errorf("copy %s: %w", name, err)
	}
	fd, dup := -1, error(nil)
	err = raw.Control(func(from uintptr) { fd, dup = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, dup); err != nil {
		return File{}, fmt.Errorf("copy %s: %w", name, err)
	}
	return File{name, os.NewFile(uintptr(fd), name)}, nil
}
