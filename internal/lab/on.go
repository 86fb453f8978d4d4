package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// StageSocket is the variable in which a script finds the socket of its stage.
const StageSocket = "LAB_STAGE"

// An order is what `lab on` sends to the stage, as JSON; a report is what comes back.
type order struct {
	Host string   `json:"host"`
	Verb string   `json:"verb"`
	Args []string `json:"args"`
}

type report struct {
	Out   string `json:"out"`
	Error string `json:"error"`
}

// A switchboard carries out the orders of scripts, one at a time: a stage is not for
// concurrent use.
type switchboard struct {
	stage  *Stage
	listen net.Listener
	dir    string // of the command `on`
	ended  sync.WaitGroup
	cancel context.CancelFunc
}

// openSwitchboard takes orders until close. The directory that it makes has the command
// `on` in it.
func (s *Stage) openSwitchboard() (*switchboard, error) {
	b := &switchboard{stage: s, dir: s.dir.file("bin")}
	on := fmt.Sprintf("#!/bin/sh\nexec '%s' on \"$@\"\n", s.lab)
	err := os.MkdirAll(b.dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "on"), []byte(on), 0o700)
	}
	if err == nil {
		b.listen, err = net.Listen("unix", s.dir.file("stage.sock"))
	}
	if err != nil {
		return nil, fmt.Errorf("take orders from scripts: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.ended.Go(func() { b.serve(ctx) }) // ends with close
	return b, nil
}

func (b *switchboard) serve(ctx context.Context) {
	for {
		c, err := b.listen.Accept()
		if err != nil {
			return // closed
		}
		b.answer(ctx, c)
	}
}

func (b *switchboard) answer(ctx context.Context, c net.Conn) {
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var o order
	var r report
	err := json.NewDecoder(c).Decode(&o)
	if err == nil {
		r.Out, err = b.stage.On(ctx, o.Host, o.Verb, o.Args...)
	}
	if err != nil {
		r.Error = err.Error()
	}
	_ = json.NewEncoder(c).Encode(r) // the script is gone if it cannot be told
}

func (b *switchboard) close() {
	b.listen.Close()
	b.cancel()
	b.ended.Wait()
}

// On has the stage of a script do something on one of its hosts and returns what that
// printed. It is the script's side of Stage.On.
func On(ctx context.Context, socket, host, verb string, args ...string) (string, error) {
	if socket == "" {
		return "", errors.New("on: there is no stage: " + StageSocket + " is not set")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return "", fmt.Errorf("on %s: ask the stage: %w", host, err)
	}
	defer c.Close()
	var r report
	if err := json.NewEncoder(c).Encode(order{host, verb, args}); err != nil {
		return "", fmt.Errorf("on %s: ask the stage: %w", host, err)
	}
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return "", fmt.Errorf("on %s: what the stage answers: %w", host, err)
	}
	if r.Error != "" {
		return r.Out, errors.New(r.Error)
	}
	return r.Out, nil
}
