package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"proxyd/internal/lab"
)

// The commands here are run on virtual machines, where client, watcher and whoever plays
// the drill are on hosts of their own.

func watchCommand() *cobra.Command {
	var device, vip string
	cmd := &cobra.Command{
		Use:    "watch",
		Short:  "Write down who answers for an address, every 50 ms",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := netip.ParseAddr(vip)
			if err != nil {
				return fmt.Errorf("watch: --vip: %w", err)
			}
			return lab.RunWatch(cmd.Context(), device, a, os.Stdout)
		},
	}
	cmd.Flags().StringVar(&device, "interface", "", "on the address's network")
	cmd.Flags().StringVar(&vip, "vip", "", "the address")
	return cmd
}

func judgeCommand() *cobra.Command {
	var key, load, watch string
	var from, to int64
	var undo, now bool
	cmd := &cobra.Command{
		Use:    "judge",
		Short:  "Hold what was written down to the promise of a drill",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if now {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), int64(lab.Now()))
				return err
			}
			f, err := lab.FaultByKey(key)
			if err != nil {
				return err
			}
			event, promise := f.Name, f.Promise
			if undo {
				event, promise = f.Name+": "+f.Back, f.Return
			}
			r := lab.Record{From: lab.Instant(from), To: lab.Instant(to)}
			var files []io.Closer
			defer func() {
				for _, c := range files {
					c.Close()
				}
			}()
			for _, in := range []struct {
				name string
				to   *io.Reader
			}{{load, &r.Load}, {watch, &r.Watch}} {
				if in.name == "" {
					continue
				}
				file, err := os.Open(in.name)
				if err != nil {
					return fmt.Errorf("judge: %w", err)
				}
				files = append(files, file)
				*in.to = file
			}
			m, err := r.Judge(event, promise)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), m)
			if !m.Within(1) {
				return exitCode(1)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&now, "now", false, "only print this host's clock, as --from and --to want it")
	f.StringVar(&key, "drill", "", "which drill")
	f.BoolVar(&undo, "undo", false, "the part that undid it")
	f.StringVar(&load, "load", "", "what `lab load` wrote")
	f.StringVar(&watch, "watch", "", "what `lab watch` wrote")
	f.Int64Var(&from, "from", 0, "when it began")
	f.Int64Var(&to, "to", 0, "when it was over")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !now && (key == "" || to <= from || load == "" && watch == "") {
			return errors.New("judge: want --drill, --from, --to, and --load or --watch")
		}
		return nil
	}
	return cmd
}
