package control

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"proxyd/internal/history"
)

func TestWatchTellsUntilTheCallerHasEnough(t *testing.T) {
	c := dial(t, &node{})
	ctx, cancel := context.WithCancel(t.Context())
	var got []uint64
	err := c.Watch(ctx, func(e history.Entry) error {
		if got = append(got, e.Seq); len(got) == 3 {
			cancel()
		}
		return nil
	})
	if err != nil || len(got) != 3 {
		t.Errorf("Watch = %v after %v, want nil after 3", err, got)
	}
}

// A node that ends does not leave its watchers hanging, nor do they keep it.
func TestWatchEndsWithTheNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, SocketHandler(&node{}, pages(), quiet)) }()
	n := 0
	began := time.Now()
	err = Dial(path).Watch(t.Context(), func(history.Entry) error {
		if n++; n == 3 {
			end()
		}
		return nil
	})
	if !errors.Is(err, ErrAbsent) {
		t.Errorf("Watch = %v, want %v", err, ErrAbsent)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
	if d := time.Since(began); d > 900*time.Millisecond {
		t.Errorf("the watcher kept the node for %v", d)
	}
}
