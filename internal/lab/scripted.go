package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"proxyd/deploy/vagrant/drills"
)

// scripted returns the drills that are folders of deploy/vagrant/drills, in the order of a
// drill: first what is planned, then what breaks, and last what takes everything down.
func scripted() []Fault {
	all, err := drills.All()
	if err != nil {
		panic(err) // they are part of this program, and its tests read them
	}
	byKey := map[string]Fault{}
	for _, d := range all {
		byKey[d.Key] = fault(d)
	}
	var out []Fault
	for _, key := range []string{
		"handover", "kill", "term", "restart", "freeze", "cut", "poweroff", "silent", "deaf", "mute", "partition",
		"failback", "track", "pooldown", "flush", "foreign", "badconfig", "loss5", "loss30", "cpu", "boot",
	} {
		if f, ok := byKey[key]; ok {
			out = append(out, f)
			delete(byKey, key)
		}
	}
	for _, d := range all {
		if f, rest := byKey[d.Key]; rest {
			out = append(out, f)
		}
	}
	return out
}

// fault makes a fault of a folder.
func fault(d drills.Drill) Fault {
	play := func(part string) func(context.Context, *Stage, *Node) error {
		return func(ctx context.Context, s *Stage, holder *Node) error {
			return s.play(ctx, d, part, holder)
		}
	}
	f := Fault{Key: d.Key, Name: d.Name, Moves: d.Moves, Lasts: d.Lasts, Strike: play("strike"), Promise: promise(d.Promise)}
	if d.Undo != nil {
		f.Undo, f.Back, f.Return = play("undo"), d.Undo.Name, promise(d.Undo.Promise)
	}
	return f
}

func promise(p drills.Promise) Promise {
	out := Promise{Outage: p.Outage, Failed: anyFailed, Two: anyTime, Changes: p.Changes}
	if p.Failed != nil {
		out.Failed = *p.Failed
	}
	if p.Two != nil {
		out.Two = *p.Two
	}
	return out
}

// play runs a part of a drill's script, as a process of the lab's own: what it wants of the
// hosts it says with the command `on`.
func (s *Stage) play(ctx context.Context, d drills.Drill, part string, holder *Node) error {
	board, err := s.openSwitchboard()
	if err != nil {
		return err
	}
	defer board.close()
	script := filepath.Join(board.dir, d.Key)
	if err := os.WriteFile(script, d.Script, 0o700); err != nil {
		return fmt.Errorf("drill %s: %w", d.Key, err)
	}
	var nodes []string
	for _, n := range s.Nodes {
		nodes = append(nodes, n.Name)
	}
	var webs []string
	for _, h := range s.webs {
		webs = append(webs, h.Addr.String())
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-eu", script, part)
	cmd.Env = append(os.Environ(),
		"PATH="+board.dir+":"+os.Getenv("PATH"),
		StageSocket+"="+s.dir.file("stage.sock"),
		"HOLDER="+holder.Name, "OTHER="+s.Other(holder).Name, "NODES="+strings.Join(nodes, " "),
		"WEBS="+strings.Join(webs, " "), "VIP="+s.VIP.String(), "INTERFACE="+hostInterface,
		"STRANGER="+s.stranger.Name, "STRANGER_INTERFACE="+hostInterface,
	)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("drill %s, %s: %w: %s", d.Key, part, err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
