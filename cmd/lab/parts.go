package main

import (
	"encoding/json"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/lab"
)

// The commands here are run by lab itself, on the hosts of a stage.

func serveCommand() *cobra.Command {
	var name, listen string
	var plain bool
	cmd := &cobra.Command{
		Use:    "serve",
		Short:  "Be a web server of the stage",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if plain {
				return lab.ServePlain(cmd.Context(), listen)
			}
			return lab.Serve(cmd.Context(), name, listen)
		},
	}
	cmd.Flags().StringVar(&name, "name", "web", "what it answers")
	cmd.Flags().StringVar(&listen, "listen", ":8080", "address")
	cmd.Flags().BoolVar(&plain, "plain", false, "answer whatever it is asked with the same few bytes, as fast as may be")
	return cmd
}

func loadCommand() *cobra.Command {
	var spec lab.LoadSpec
	cmd := &cobra.Command{
		Use:    "load",
		Short:  "Be the client of the stage",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.RunLoad(cmd.Context(), spec, os.Stdout)
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Target, "target", "", "host:port")
	f.IntVar(&spec.Rate, "rate", 200, "requests a second on connections of their own")
	f.IntVar(&spec.Kept, "kept", 0, "connections that are kept")
	f.IntVar(&spec.KeptRate, "kept-rate", 0, "requests a second on all kept connections together")
	f.DurationVar(&spec.Deadline, "deadline", time.Second, "of one request")
	return cmd
}

func attackCommand() *cobra.Command {
	var spec lab.AttackSpec
	cmd := &cobra.Command{
		Use:    "attack",
		Short:  "Be the attackers of the drill floods",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.Attack(cmd.Context(), spec, os.Stdout)
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Target, "target", "", "host:port, of the loopback")
	f.BoolVar(&spec.TLS, "tls", false, "HTTP/2 by ALPN")
	f.StringVar(&spec.Kind, "kind", "", "which attack")
	f.IntVar(&spec.Conns, "conns", 8, "connections")
	f.DurationVar(&spec.Last, "last", 4*time.Second, "how long")
	return cmd
}

func paceCommand() *cobra.Command {
	var spec lab.LoadSpec
	var pace lab.PaceSpec
	cmd := &cobra.Command{
		Use:    "pace",
		Short:  "Be clients that make requests at a fixed rate",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What the collector takes is taken from who is measured.
			debug.SetGCPercent(800)
			r, err := lab.Pace(cmd.Context(), spec, pace)
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(r)
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Target, "target", "", "host:port")
	f.StringVar(&spec.Host, "host", "", "of the requests")
	f.StringVar(&spec.Path, "path", "/", "of the requests")
	f.IntVar(&spec.Post, "post", 0, "bytes of a body to POST; 0: GET")
	f.DurationVar(&spec.Deadline, "deadline", 10*time.Second, "of one request")
	f.IntVar(&pace.Conns, "conns", 64, "how many at once")
	f.IntVar(&pace.Rate, "rate", 1000, "requests a second of all together")
	f.DurationVar(&pace.Last, "for", time.Second, "how long")
	f.BoolVar(&pace.Each, "each", false, "a connection for each request, not kept ones")
	return cmd
}

func steadyCommand() *cobra.Command {
	var spec lab.SteadySpec
	cmd := &cobra.Command{
		Use:    "steady",
		Short:  "Be the clients of HTTP/2 beside an attack",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return json.NewEncoder(os.Stdout).Encode(lab.Steady(cmd.Context(), spec))
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Target, "target", "", "host:port")
	f.BoolVar(&spec.TLS, "tls", false, "HTTP/2 by ALPN")
	f.IntVar(&spec.Rate, "rate", 100, "requests a second of all together")
	f.IntVar(&spec.Conns, "conns", 5, "connections")
	f.DurationVar(&spec.Last, "for", time.Second, "how long")
	f.DurationVar(&spec.From, "from", 0, "what is asked before does not count")
	return cmd
}

func shakesCommand() *cobra.Command {
	var spec lab.LoadSpec
	var clients int
	var long time.Duration
	cmd := &cobra.Command{
		Use:    "shakes",
		Short:  "Be clients that have a full handshake of TLS for each request",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What the collector takes is taken from who is measured.
			debug.SetGCPercent(800)
			r, err := lab.Shakes(cmd.Context(), spec, clients, long)
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(r)
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Target, "target", "", "host:port")
	f.StringVar(&spec.Host, "host", "", "of the requests, and whose certificate is asked for")
	f.StringVar(&spec.Path, "path", "/", "of the requests")
	f.DurationVar(&spec.Deadline, "deadline", 10*time.Second, "of one request")
	f.IntVar(&clients, "clients", 16, "how many at once")
	f.DurationVar(&long, "for", time.Second, "how long")
	return cmd
}
