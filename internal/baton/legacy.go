package baton

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
)

// A Legacy is the files that came from the process before, until somebody asks for them by
// name. The zero value and nil have none. It is safe for concurrent use.
type Legacy struct {
	mu    sync.Mutex
	files map[string]*os.File
}

// NewLegacy returns a Legacy of files, which are its own from now on. Of two with one name
// the first counts.
func NewLegacy(files []File) *Legacy {
	l := &Legacy{files: map[string]*os.File{}}
	for _, f := range files {
		if _, double := l.files[f.Name]; double {
			f.File.Close()
			continue
		}
		l.files[f.Name] = f.File
	}
	return l
}

// take gives the file of a name away, or nil.
func (l *Legacy) take(name string) *os.File {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[name]
	delete(l.files, name)
	return f
}

// File returns the file of a name, which is the caller's from now on; ok is false if there is none.
func (l *Legacy) File(name string) (_ *os.File, ok bool) {
	f := l.take(name)
	return f, f != nil
}

// Listener returns the listener of a name; ok is false if there is none.
func (l *Legacy) Listener(name string) (_ net.Listener, ok bool, err error) {
	f := l.take(name)
	if f == nil {
		return nil, false, nil
	}
	defer f.Close()
	listener, err := net.FileListener(f)
	if err != nil {
		return nil, false, fmt.Errorf("inherited listener %s: %w", name, err)
	}
	return listener, true, nil
}

// UDP returns the UDP socket of a name; ok is false if there is none.
func (l *Legacy) UDP(name string) (_ *net.UDPConn, ok bool, err error) {
	f := l.take(name)
	if f == nil {
		return nil, false, nil
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, false, fmt.Errorf("inherited socket %s: %w", name, err)
	}
	u, is := c.(*net.UDPConn)
	if !is {
		c.Close()
		return nil, false, fmt.Errorf("inherited socket %s: a %T is no UDP socket", name, c)
	}
	return u, true, nil
}

// Close closes what nobody asked for and returns its names, sorted.
func (l *Legacy) Close() []string {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	names := slices.Sorted(maps.Keys(l.files))
	for _, f := range l.files {
		f.Close()
	}
	l.files = nil
	return names
}
