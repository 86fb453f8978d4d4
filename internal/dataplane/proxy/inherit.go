package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"

	"proxyd/internal/dataplane/engine"
)

// Open begins to serve a Plane whose Options said Shut. Until then connections wait in the
// kernel, which another process may also take them from.
func (p *Plane) Open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.opt.Shut {
		return
	}
	p.opt.Shut = false
	p.steerAll()
	for _, d := range p.doors {
		p.attend(d)
	}
}

// attend serves a door, unless the Plane is shut.
func (p *Plane) attend(d *door) {
	if !p.opt.Shut {
		go p.serve(d) // ends when the door's socket is closed
	}
}

// Sockets returns a copy of each listening socket, by its address in the configuration, for
// the process that takes this one's place. The caller closes them.
func (p *Plane) Sockets() (map[string]*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	files := map[string]*os.File{}
	var errs []error
	for address, d := range p.doors {
		s, ok := d.socket.(*engine.Socket)
		if !ok {
			errs = append(errs, fmt.Errorf("listener on %s: a %T cannot be given away", address, d.socket))
			continue
		}
		f, err := s.File()
		if err != nil {
			errs = append(errs, fmt.Errorf("listener on %s: %w", address, err))
			continue
		}
		files[address] = f
	}
	if err := errors.Join(errs...); err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	return files, nil
}

// Adopt makes what Listen returns of a socket that another process opened so. l is closed.
func Adopt(l net.Listener) (net.Listener, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("a %T is no TCP socket", l)
	}
	return engine.NewSocket(tcp)
}

// Connections returns how many client connections are open.
func (p *Plane) Connections() int64 { return p.conns.open.Load() }
