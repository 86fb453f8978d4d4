package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// poll is how often within looks again.
const poll = 10 * time.Millisecond

// A notYet is a reason to wait on, kept for the message if the time runs out.
type notYet struct{ error }

func (e notYet) Unwrap() error { return e.error }

// within waits until ok says true, looking again and again. It gives up when patience is
// over, when ctx ends, and at an error that is not notYet.
func within(ctx context.Context, patience time.Duration, what string, ok func() (bool, error)) error {
	deadline := time.After(patience)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		done, err := ok()
		if done {
			return nil
		}
		var wait notYet
		if err != nil && !errors.As(err, &wait) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-deadline:
			if err != nil {
				return fmt.Errorf("wait for %s: not within %v: %w", what, patience, err)
			}
			return fmt.Errorf("wait for %s: not within %v", what, patience)
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// onlyFiles is a file system without sockets.
type onlyFiles struct{ fs.FS }

func (f onlyFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(f.FS, name)
	kept := all[:0]
	for _, e := range all {
		if e.IsDir() || e.Type().IsRegular() {
			kept = append(kept, e)
		}
	}
	return kept, err
}
