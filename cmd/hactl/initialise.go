package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"proxyd/internal/config"
)

func initCommand() *cobra.Command {
	var t config.TemplateData
	var dir string
	var force bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a configuration and a cluster key for the first host",
		Long: `init writes a commented configuration and a new cluster key (mode 0600) for this host, and
prints what the second host needs. Existing files are never overwritten without --force.`,
		Example: "  hactl init --join 10.0.0.11,10.0.0.12 --vip 10.0.0.100/24 --interface eth0 --to 10.0.1.5:8080,10.0.1.6:8080",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return initialise(cmd.OutOrStdout(), dir, t, force)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "/etc/proxyd", "where the files are written")
	f.StringVar(&t.Node, "name", "", "name of this node; default: its hostname")
	f.StringVar(&t.Cluster, "cluster", "", `name of the cluster; default "proxyd"`)
	f.StringSliceVar(&t.Join, "join", nil, "addresses of all nodes, the same list on every host")
	f.StringVar(&t.VIP, "vip", "", "virtual address with the length of its subnet, as 203.0.113.10/24")
	f.StringVar(&t.Interface, "interface", "", "interface of the VIP; default: the one whose subnet it is in")
	f.StringVar(&t.Host, "host", "", "host of the first route; default: any")
	f.StringSliceVar(&t.To, "to", nil, "servers of the first route; default: an answer that says that proxyd works")
	f.BoolVar(&force, "force", false, "overwrite existing files")
	return cmd
}

// initialise writes both files, or neither.
func initialise(out io.Writer, dir string, t config.TemplateData, force bool) error {
	file, key := filepath.Join(dir, "proxyd.toml"), filepath.Join(dir, "cluster.key")
	if len(t.Join) > 0 {
		t.Secret = key
	}
	if t.VIP != "" && t.Interface == "" {
		var err error
		if t.Interface, err = interfaceOf(t.VIP); err != nil {
			return usageError{err}
		}
	}
	if !force {
		for _, path := range []string{file, key} {
			if _, err := os.Lstat(path); err == nil {
				return statusError{exitRefused, path + " exists; --force overwrites it"}
			}
		}
	}
	secret, err := newSecret()
	if err != nil {
		return err
	}
	text := config.Template(t)
	// The key is not there yet, so that its place is checked with the key itself in hand.
	if err := checkTemplate(text, t, secret); err != nil {
		return usageError{err}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if t.Secret != "" {
		if err := writeFile(key, secret+"\n", 0o600); err != nil {
			return err
		}
	}
	if err := writeFile(file, text, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(out, "wrote %s\n", file)
	if t.Secret == "" {
		fmt.Fprintf(out, "\ncheck it:  proxyd check -c %s\nrun it:    systemctl enable --now proxyd\n", file)
		return nil
	}
	fmt.Fprintf(out, "wrote %s (mode 0600)\n", key)
	fmt.Fprintf(out, `
On the second host the same two files are needed:
  scp %s %s SECOND:%s/
`, file, key, dir)
	if t.Node != "" {
		fmt.Fprintf(out, "and there, in %s, its own name instead of %q: [node] name = \"...\"\n", file, t.Node)
	}
	fmt.Fprintf(out, "\nThen, on both:\n  proxyd check -c %s\n  systemctl enable --now proxyd\n  hactl status\n", file)
	return nil
}

// newSecret returns 256 random bits as text.
func newSecret() (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(b[:]), nil
}

// checkTemplate judges what the flags made, with the key in a file of its own.
func checkTemplate(text string, t config.TemplateData, secret string) error {
	if t.Secret == "" {
		_, err := config.Parse("proxyd.toml", []byte(text))
		return err
	}
	f, err := os.CreateTemp("", "proxyd-key-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(secret); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	t.Secret = f.Name()
	_, err = config.Parse("proxyd.toml", []byte(config.Template(t)))
	return err
}

// writeFile replaces path at once: a reader sees the old file or the new one.
func writeFile(path, text string, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// interfaceOf finds the interface of this host that has the VIP's subnet.
func interfaceOf(vip string) (string, error) {
	p, err := netip.ParsePrefix(vip)
	if err != nil {
		return "", fmt.Errorf("--vip %s: want an address with the length of its subnet, as 203.0.113.10/24", vip)
	}
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	var found []string
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if own, err := netip.ParsePrefix(a.String()); err == nil && own.Masked() == p.Masked() {
				found = append(found, i.Name)
				break
			}
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("--interface: no single interface of this host has the subnet of %s (found: %s); name it", vip, strings.Join(found, ", "))
	}
	return found[0], nil
}
