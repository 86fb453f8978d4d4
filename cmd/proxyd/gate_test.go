package main

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// guarded is a listener behind a gate, at which nobody is answered.
func guarded(t *testing.T, g *gate) *gated {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	d := g.guard(l)
	t.Cleanup(func() { d.Close() })
	return d
}

func (d *gated) call(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A process that fails before it serves must end, and not wait for its own gate.
func TestAListenerBehindAGateCanBeClosed(t *testing.T) {
	d := guarded(t, newGate(false))
	ended := make(chan error)
	go func() {
		_, err := d.Accept()
		ended <- err
	}()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want %v", err, net.ErrClosed)
	}
	if err := d.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close = %v", err)
	}
}

// Whoever comes while a gate is shut waits, and breaks nothing.
func TestAGateThatIsShutLetsThoseGoThatAreInside(t *testing.T) {
	g := newGate(true)
	d := guarded(t, g)
	in := make(chan net.Conn)
	go func() { // ends with the listener
		for {
			c, err := d.Accept()
			if err != nil {
				close(in)
				return
			}
			in <- c
		}
	}()
	d.call(t)
	d.call(t)
	first, lasts := <-in, <-in

	shut := make(chan struct{})
	go func() {
		g.shut(time.Hour)
		close(shut)
	}()
	lasts.(*visitor).Lasts()
	select {
	case <-shut:
		t.Fatal("the gate has not waited for a call")
	default:
	}
	first.Close()
	<-shut
	late := d.call(t)
	if n := g.count(0); n != 0 {
		t.Errorf("%d were let in at a gate that is shut", n)
	}
	g.open()
	c := <-in
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(io.LimitReader(late, 1)); err != nil || string(b) != "x" {
		t.Errorf("whoever waited hears %q, %v", b, err)
	}
	g.shut(0) // one is inside: it has no time
	c.Close()
	lasts.Close()
	if n := g.count(0); n != 0 {
		t.Errorf("%d are inside after all have gone", n)
	}
	g.open()
	d.Close()
	<-in
}
