package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/backup"
)

func backupCommand(o *options) *cobra.Command {
	var with bool
	var passphrase string
	cmd := &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Write one file from which this node, or one in its place, can be made again",
		Long: `backup writes an archive (tar.gz, readable by its owner alone) with the configuration and what it
includes, what was changed at run time, what operators want of servers, routes and nodes,
the generations and the term, each with its checksum. Secrets are only named, unless
--passphrase-file seals them with what is in that file, or --with-secrets puts them in clear.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := within(cmd, reloadTime)
			defer cancel()
			b, err := o.client().Backup(ctx)
			if err != nil {
				return err
			}
			a := &backup.Archive{Manifest: backup.Manifest{Cluster: b.Cluster, Node: b.Node, Address: b.Address, Version: b.Version, Time: b.Time,
				Config: b.Config, Main: b.Main, State: b.State}}
			for _, f := range b.Files {
				a.Add(f.Name, f.Data)
			}
			secrets := map[string][]byte{}
			for _, ref := range b.Secrets {
				a.Secrets = append(a.Secrets, backup.Secret{Ref: ref, Have: "no"})
				name, isFile := strings.CutPrefix(ref, "file:")
				if !isFile || !with && passphrase == "" {
					continue
				}
				if secrets[name], err = os.ReadFile(name); err != nil {
					return fmt.Errorf("secret: %w", err)
				}
			}
			if len(secrets) > 0 {
				word, err := readPassphrase(passphrase)
				if err != nil {
					return err
				}
				if err := a.AddSecrets(secrets, word); err != nil {
					return usageError{err}
				}
			}
			if err := writeBackup(cmd.OutOrStdout(), args[0], a); err != nil {
				return err
			}
			for _, warning := range b.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s of cluster %s: %d files, configuration %s\n", a.Node, a.Cluster, len(a.Files), a.Config)
			for _, s := range a.Secrets {
				if s.Have == "no" {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s is not in it: --passphrase-file puts it in, sealed\n", s.Ref)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&with, "with-secrets", false, "put the secrets in, in clear")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "put the secrets in, sealed with the passphrase that stands in this file")
	return cmd
}

// readPassphrase reads the first line of a file; "" without one.
func readPassphrase(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimRight(line, "\r"); len(line) < backup.MinPassphrase {
		return "", usageError{fmt.Errorf("%s: the passphrase has %d characters; at least %d are needed", name, len(line), backup.MinPassphrase)}
	}
	return line, nil
}

// writeBackup writes a new file whole or not at all.
func writeBackup(stdout io.Writer, name string, a *backup.Archive) error {
	if name == "-" {
		return a.Write(stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".backup-*") // mode 0600
	if err != nil {
		return err
	}
	err = a.Write(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func restoreCommand(o *options) *cobra.Command {
	var t backup.Target
	var passphrase string
	cmd := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "Make a node again from a backup, on this host",
		Long: `restore writes what backup kept to where it was (or --config, --state), on a host where proxyd
does not run yet. --name and --address make another node of it, in the place of the one of the
backup: tell the others with hactl member replace. What is there already is not overwritten
without --force, and a secret not even read unless it is missing. The archive is checked
before anything is written.`,
		Example: "  hactl restore edge-2.backup --name edge-3 --address 10.0.0.13",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var text []byte
			var err error
			if args[0] == "-" {
				text, err = io.ReadAll(cmd.InOrStdin())
			} else {
				text, err = os.ReadFile(args[0])
			}
			if err != nil {
				return err
			}
			a, err := backup.Read(bytes.NewReader(text))
			if err != nil {
				return statusError{exitConfig, err.Error()}
			}
			ctx, cancel := within(cmd, time.Second)
			defer cancel()
			if _, err := o.client().Version(ctx); err == nil {
				return statusError{exitRefused, "proxyd runs on this host; stop it first"}
			}
			word, err := readPassphrase(passphrase)
			if err != nil {
				return err
			}
			if !a.Sealed() || word != "" {
				if t.Secrets, err = a.OpenSecrets(word); err != nil {
					return statusError{exitRefused, err.Error()}
				}
			}
			r, err := a.Restore(t)
			if err != nil {
				return statusError{exitRefused, err.Error()}
			}
			for _, name := range r.Files {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			for _, ref := range r.Missing {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s is needed and not here\n", ref)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&t.Main, "config", "", "where the main file goes; default: where it was")
	cmd.Flags().StringVar(&t.State, "state", "", "where the state goes; default: where it was")
	cmd.Flags().StringVar(&t.Name, "name", "", "name of the node; default: as it was")
	cmd.Flags().StringVar(&t.Address, "address", "", "address of the node in cluster.join, in the place of the one it had")
	cmd.Flags().BoolVar(&t.Force, "force", false, "overwrite what is there")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "file with the passphrase with which the secrets were sealed")
	return cmd
}
