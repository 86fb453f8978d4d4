package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/filter"
	"proxyd/internal/dataplane/proxy"
)

func explainCommand(o *options) *cobra.Command {
	var q control.Question
	var file, format string
	var all bool
	cmd := &cobra.Command{
		Use:   "explain METHOD URL",
		Short: "Tell what is done with a request, and why",
		Long: `explain tells which route takes a request and why the others do not, what is done on
the way, and what a server would be sent. It asks the running proxyd, which counts nothing
and sends nothing; with -f it needs none and reads a file, with what that includes and what
was changed at run time on its host.

Exit codes: 0 whatever would become of the request, 64 it is none (a bad URL, header,
client or listener), 69 proxyd is not reachable, 78 FILE is bad.`,
		Example: `  hactl explain GET https://api.example.com/v1/items?id=7 -H 'X-Client: app/2' --client 198.51.100.9
  hactl explain POST http://example.com/api -f proxyd.toml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{errors.New("explain: want METHOD and URL")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usageError{errors.New("explain: -o: want text or json")}
			}
			q.Method, q.URL = args[0], args[1]
			e, err := explain(cmd, o, file, q)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), e)
			}
			showExplanation(cmd.OutOrStdout(), e, all)
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&q.Header, "header", "H", nil, "a field of the request, 'Name: value'")
	cmd.Flags().StringVar(&q.Client, "client", "", "address of the client, or of the proxy before it; default: 192.0.2.1")
	cmd.Flags().StringVar(&q.Listener, "listener", "", "listener that it comes to; default: one with the URL's port")
	cmd.Flags().StringVarP(&file, "file", "f", "", "a configuration file instead of the running proxyd")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&all, "all", false, "name the routes of other hosts too")
	return cmd
}

func explain(cmd *cobra.Command, o *options, file string, q control.Question) (*proxy.Explanation, error) {
	if file != "" {
		return explainFile(cmd, file, q)
	}
	ctx, cancel := within(cmd, 5*time.Second)
	defer cancel()
	raw, err := o.client().Explain(ctx, q)
	if errors.Is(err, control.ErrInvalid) { // the question is all that can be
		return nil, usageError{fmt.Errorf("explain: %w", err)}
	} else if err != nil {
		return nil, err
	}
	e := &proxy.Explanation{}
	return e, json.Unmarshal(raw, e)
}

func explainFile(cmd *cobra.Command, file string, q control.Question) (*proxy.Explanation, error) {
	c, err := config.Load(config.Texts{Main: file, Partial: true})
	if err != nil {
		return nil, statusError{exitConfig, err.Error()}
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), w)
	}
	e, err := proxy.Explain(c, proxy.Question(q))
	if bad := (proxy.BadQuestion{}); errors.As(err, &bad) {
		return nil, usageError{fmt.Errorf("explain: %w", err)}
	} else if err != nil {
		return nil, statusError{exitConfig, err.Error()}
	}
	return e, nil
}

func showExplanation(w io.Writer, e *proxy.Explanation, all bool) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	version := "of a file"
	if e.Live {
		version = fmt.Sprint(e.Version)
	}
	fmt.Fprintf(w, "%s   from %s   on %s (configuration %s, %s)\n", e.Request, e.Peer, e.Node, version, e.Config)
	if e.Mismatch != "" {
		row("mismatch", "%s", e.Mismatch)
	}
	if e.Refused != "" {
		row("refused", "%d %s: nothing of it is routed", e.Status, e.Refused)
		return
	}
	query := ""
	if e.Query != "" {
		query = "?" + e.Query
	}
	row("normalised", "%s %s:%s %s%s", e.Scheme, dash(e.Host), e.Port, e.Path, query)
	if e.Client != e.Peer {
		row("client", "%s, as the trusted proxy %s says", e.Client, e.Peer)
	}
	row("listener", "%s (%s), speaks %s", e.Listener, strings.Join(e.Addresses, ", "), e.Speaks)
	if c := e.Connections; c != nil {
		showConnections(row, c)
	}
	if e.Cert != "" {
		row("certificate", "%s", e.Cert)
	}
	if e.Route == nil {
		row("route", "none")
	} else {
		row("route", "%q   %s   %s:%d", e.Route.Name, e.Route.Why, e.Route.File, e.Route.Line)
	}
	more := 0
	for _, r := range e.Others {
		if !all && !r.Host {
			more++
			continue
		}
		row("  not taken", "%q   %s   %s:%d", r.Name, r.Why, r.File, r.Line)
	}
	if more > 0 {
		row("  not taken", "%d of other hosts or listeners (--all names them)", more)
	}
	if len(e.Policies) > 0 {
		row("policies", "%s", strings.Join(e.Policies, ", "))
	}
	if e.Closed != nil && e.Closed.Allowed {
		row("maintenance", "others get %d; this client is let through", e.Closed.Status)
	} else if e.Closed != nil {
		row("maintenance", "closed by an operator")
	}
	showStages(row, e.Stages)
	if len(e.Split) > 0 {
		var shares []string
		for name, share := range e.Split {
			shares = append(shares, fmt.Sprintf("%s %d", name, share))
		}
		slices.Sort(shares)
		row("split", "%s -> %s, by the client's address", strings.Join(shares, " / "), e.Pool)
	}
	if e.Pool != "" {
		showPool(row, e)
	}
	if e.Status != 0 {
		row("answer", "%d (%s)", e.Status, e.Reason)
		for _, f := range e.Answer {
			row("", "%s", f)
		}
		return
	}
	for i, line := range e.Sends {
		if i == 0 {
			row("would send", "%s", line)
		} else {
			row("", "%s", line)
		}
	}
}

// showConnections tells how many connections the peer has, if it may not have as many as it likes.
func showConnections(row func(name, format string, args ...any), c *proxy.Connections) {
	switch {
	case c.Barred:
		row("connections", "%d; a new one is turned away: the address has flooded", c.Open)
	case c.Most > 0 && c.Open >= c.Most:
		row("connections", "%d of %d of the address: a new one is turned away", c.Open, c.Most)
	case c.Most > 0:
		row("connections", "%d of %d of the address", c.Open, c.Most)
	}
}

// showPool gives the servers that the request may go to.
func showPool(row func(name, format string, args ...any), e *proxy.Explanation) {
	row("pool", "%s, %s", e.Pool, e.Balance)
	if e.Hash != "" {
		row("  hash", "%s", e.Hash)
	}
	if e.Cookie != "" {
		row("  cookie", "%s", e.Cookie)
	}
	for _, s := range e.Servers {
		row("  server", "%s", serverLine(s))
	}
	switch chosen := slices.ContainsFunc(e.Servers, func(s proxy.ServerVerdict) bool { return s.Chosen }); {
	case e.Waits:
		row("", "all are full: it waits in the queue")
	case e.Drawn:
		row("", "which one is by chance")
	case !chosen && e.Status == 0:
		row("", "which one is not known: no name is looked up for a file")
	}
}

// showStages gives the stages in one row, and below it what those do that have more to say.
func showStages(row func(name, format string, args ...any), stages []filter.Stage) {
	names := make([]string, len(stages))
	for i, s := range stages {
		names[i] = s.Name
	}
	if len(names) > 0 {
		row("stages", "%s", strings.Join(names, " -> "))
	}
	for _, s := range stages {
		if s.Does != "" {
			row("", "%-18s %s", s.Name, s.Does)
		}
	}
}

func serverLine(s proxy.ServerVerdict) string {
	text := fmt.Sprintf("%s   weight %d", s.Name, s.Weight)
	if s.Weight != s.Wanted {
		text += fmt.Sprintf(" (an operator's; configured %d)", s.Wanted)
	}
	text += ", " + s.State
	if s.State == "drain" || s.State == "maint" {
		text += " (an operator's)"
	}
	if s.Why != "" {
		text += " (" + s.Why + ")"
	}
	text += fmt.Sprintf(", %d active", s.Active)
	if s.Backup {
		text += ", backup"
	}
	if s.Chosen {
		text += "   <- next"
	}
	return text
}
