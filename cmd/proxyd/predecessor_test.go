package main

import (
	"errors"
	"net"
	"testing"
)

// A process that fails before it serves must end, and not wait for its own gate.
func TestAListenerBehindAGateCanBeClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGated(l, make(chan struct{}))
	ended := make(chan error)
	go func() {
		_, err := g.Accept()
		ended <- err
	}()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want %v", err, net.ErrClosed)
	}
	if err := g.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close = %v", err)
	}
}
