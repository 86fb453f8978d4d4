package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A Space is a network namespace with one thread that lives in it. Nothing else holds the
// namespace: when the thread ends, the kernel kills the processes it started (they ask
// for it with Pdeathsig) and removes the interfaces. A lab that is killed with -9 leaves
// no namespace, no link and no process behind.
type Space struct {
	work chan func()
	gone chan struct{}
	file *os.File // the namespace, for those who put a link into it
}

var errSpaceClosed = errors.New("network namespace is closed")

// NewSpace makes an empty network namespace; loopback is up. Close it.
func NewSpace() (*Space, error) {
	s := &Space{work: make(chan func()), gone: make(chan struct{})}
	born := make(chan error, 1)
	go s.live(born)
	if err := <-born; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return s, nil
}

// live ends when Close closes s.work.
func (s *Space) live(born chan<- error) {
	// The thread is never unlocked, so it ends with this goroutine. The process's first
	// thread cannot end; a goroutine that finds itself on it holds it while another lives.
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		moved := make(chan struct{})
		go func() {
			defer close(moved)
			s.live(born)
		}()
		<-moved
		runtime.UnlockOSThread()
		return
	}
	defer close(s.gone)
	handle, err := netns.New()
	if err == nil {
		s.file = os.NewFile(uintptr(handle), "network namespace")
		err = linkUp("lo")
	}
	born <- err
	if err != nil {
		return
	}
	for f := range s.work {
		f()
	}
	s.file.Close()
}

// Do runs f on the thread of the namespace and returns its error. Sockets that f opens and
// processes that it starts belong to the namespace, and stay there when f has returned.
func (s *Space) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case s.work <- func() { result <- f() }:
		return <-result
	case <-s.gone:
		return errSpaceClosed
	}
}

// Close ends the thread, and with it all that lives in the namespace. It must be called
// once, and not together with Do.
func (s *Space) Close() {
	close(s.work)
	<-s.gone
}
