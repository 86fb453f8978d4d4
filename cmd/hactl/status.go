package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

func statusCommand(o *options) *cobra.Command {
	var format string
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster as this node sees it",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wantFormat(format); err != nil {
				return err
			}
			if watch {
				return statusScreen(cmd, o, format)
			}
			s, err := status(cmd.Context(), o)
			if err != nil {
				return statusError{exitUnreachable, err.Error()}
			}
			return show(cmd.OutOrStdout(), s, format)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second")
	outputFlag(cmd, &format)
	return cmd
}

// statusScreen shows the status again every second until the operator has enough.
func statusScreen(cmd *cobra.Command, o *options, format string) error {
	for {
		s, err := status(cmd.Context(), o)
		if format == "table" {
			// Home, then clear what the last picture left.
			fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J")
		}
		if err != nil {
			fmt.Fprintln(cmd.OutOrStdout(), err)
		} else {
			// The code of a picture that is replaced in a second means nothing.
			_ = show(cmd.OutOrStdout(), s, format)
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func status(ctx context.Context, o *options) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return o.client().Status(ctx)
}

// show prints s and returns the exit code that its health deserves.
func show(w io.Writer, s *control.Status, format string) error {
	if format == "json" {
		if err := printJSON(w, s); err != nil {
			return err
		}
	} else {
		table(w, s, time.Now())
	}
	switch s.Health {
	case "healthy":
		return nil
	case "degraded":
		return statusError{code: exitDegraded}
	}
	return statusError{code: exitFailed}
}

// table prints s for eyes. Nothing in it is without an age: what is known of another node
// is as old as its last beat.
func table(w io.Writer, s *control.Status, now time.Time) {
	fmt.Fprintf(w, "cluster %s   %s   config %s%s%s   seen from %s, up %s\n",
		s.Cluster, strings.ToUpper(s.Health), s.Config, agreement(s), arbiters(s), s.Node, age(now.Sub(s.Since)))
	for _, r := range s.Reasons {
		fmt.Fprintln(w, "  "+r)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tPREFER\tHEALTH\tHEARTBEAT\tLONGEST GAP 24h\tHOLDS\tADDRESS\tCONFIG\tVERSION\tUPTIME")
	for _, n := range s.Nodes {
		name := n.Name
		if name == s.Node {
			name += " *"
		}
		heard, gap := "-", "-"
		if n.Name != s.Node {
			heard = "never"
			if n.AgeMS >= 0 {
				heard = fmt.Sprintf("%d ms ago", n.AgeMS) + onPaths(n.Paths)
			}
			gap = fmt.Sprintf("%d of %d ms", n.LongestGapMS, n.LimitMS)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, role(s, n), place(s, n.Name), healthOf(n), heard, gap,
			held(s, n.Name), dash(n.Address), dash(n.Config), dash(n.Version), age(time.Duration(n.UptimeS)*time.Second))
	}
	t.Flush()
	if len(s.VIPs) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "VIP\tADDRESS\tHOLDER\tTERM\tSINCE\tSEEN\tLEASE\tLAST ANNOUNCED\tCONFLICTS\tUNHELD")
		for _, v := range s.VIPs {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%d\t%.1fs\n", v.Name, v.Address, holders(v, now), v.Term, ago(now, v.Since),
				seen(v), orNothing(v.LeaseMS), ago(now, v.Announced), v.Conflicts, v.UnheldS)
		}
		t.Flush()
	}
	if len(s.Tracks) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "TRACK\tKIND\tSTATE\tSINCE\tWEIGHT\tREASON")
		for _, x := range s.Tracks {
			weight := fmt.Sprint(x.Weight)
			if x.Veto {
				weight = "veto"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", x.Name, x.Kind, x.State, ago(now, &x.Since), weight, dash(x.Reason))
		}
		t.Flush()
	}
	if wanted := standings(s); len(wanted) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "WANTED\tOF\tSINCE\tUNTIL\tBY\tASKED ON\tREASON")
		for _, x := range wanted {
			until := "-"
			if x.Until != nil {
				until = "in " + age(x.Until.Sub(now))
			}
			of := x.Node
			if of == "" {
				of = "all"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.State, of, ago(now, &x.Since), until, dash(x.By), x.On, dash(x.Reason))
		}
		t.Flush()
	}
	if len(s.Overrides) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "OVERRIDE\tIN FORCE\tSINCE\tASKED ON")
		for _, o := range s.Overrides {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", subject(o), wish(o), ago(now, &o.Since), o.Node)
		}
		t.Flush()
	}
	if o := s.Overload; o.Shedding || o.Refused > 0 {
		word := "keeps up now"
		if o.Shedding {
			word = "SHEDS"
		}
		fmt.Fprintf(w, "\nOVERLOAD  %s %s: %d refusals wait, %d exchanges were refused since its start\n", s.Node, word, o.Waiting, o.Refused)
	}
	if u := s.Upgrade; u != nil && u.Draining != nil {
		fmt.Fprintf(w, "\nUPGRADED  %s -> %s, %s ago: the process before (pid %d) lets %d connections end\n",
			u.From, u.To, age(now.Sub(u.Since)), u.Draining.PID, u.Draining.Connections)
	}
	if c := s.Last; c != nil {
		fmt.Fprintf(w, "\nLAST CHANGE  %s  %s: %s -> %s  %s", c.Time.UTC().Format(time.RFC3339), c.VIP, dash(c.From), dash(c.To), c.Reason)
		if c.Text != "" {
			fmt.Fprintf(w, " (%q)", c.Text)
		}
		if c.TookMS > 0 {
			fmt.Fprintf(w, ", %.1f ms", c.TookMS)
		}
		fmt.Fprintln(w)
	}
}

// onPaths tells when a node was last heard on each of several paths.
func onPaths(paths []control.Path) string {
	var out []string
	for _, p := range paths {
		switch {
		case p.AgeMS < 0:
			out = append(out, p.Name+" never")
		case p.Silent:
			out = append(out, fmt.Sprintf("%s SILENT for %d ms", p.Name, p.AgeMS))
		default:
			out = append(out, fmt.Sprintf("%s %d", p.Name, p.AgeMS))
		}
	}
	if len(out) < 2 {
		return ""
	}
	return " (" + strings.Join(out, ", ") + ")"
}

// standings lists what operators want of nodes and of the cluster.
func standings(s *control.Status) []control.Standing {
	var out []control.Standing
	if s.Paused != nil {
		out = append(out, *s.Paused)
	}
	for _, n := range s.Nodes {
		if n.Standing != nil {
			out = append(out, *n.Standing)
		}
	}
	return out
}

// agreement says whether the nodes have the same configuration.
func agreement(s *control.Status) string {
	if len(s.Nodes) < 2 {
		return ""
	}
	if slices.ContainsFunc(s.Nodes, func(n control.NodeStatus) bool { return n.Name == s.Node && n.Witness }) {
		return "" // its file is its own
	}
	for _, n := range s.Nodes {
		if n.Config != "" && n.Config != s.Config && !n.Witness {
			return " (DIFFERS between nodes)"
		}
	}
	if len(s.Nodes) == 2 {
		return " (same on both)"
	}
	return " (same on all)"
}

// arbiters says of each whether it answers.
func arbiters(s *control.Status) string {
	var b strings.Builder
	for _, a := range s.Arbiters {
		word := "ok"
		if !a.OK {
			word = "DOES NOT ANSWER"
		}
		fmt.Fprintf(&b, "   arbiter %s %s", a.Address, word)
	}
	return b.String()
}

// role is what a node is to the addresses, where that is more than what it can do.
func role(s *control.Status, n control.NodeStatus) string {
	switch {
	case n.State != "up":
		return n.State
	case n.Witness:
		return "witness"
	case held(s, n.Name) != "-":
		return "holder"
	case len(s.VIPs) > 0:
		return "standby"
	}
	return n.State
}

// place is where a node stands in the order of candidates, for each order that there is.
func place(s *control.Status, node string) string {
	var places []string
	for _, v := range s.VIPs {
		if i := slices.Index(v.Prefer, node); i >= 0 {
			if p := fmt.Sprint(i + 1); !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	slices.Sort(places)
	return dash(strings.Join(places, ","))
}

func healthOf(n control.NodeStatus) string {
	if n.Reason != "" {
		return n.Reason
	}
	if n.State == "unheard" {
		return "not known"
	}
	if n.Damped {
		return fmt.Sprintf("ok, damped (failed %.1f times of late)", n.Flaps)
	}
	return "ok"
}

// holders names who has a VIP, and for how long what is left here goes on accepting.
func holders(v control.VIPStatus, now time.Time) string {
	out := "NONE"
	if len(v.Holders) > 0 {
		out = strings.Join(v.Holders, " AND ")
	}
	if v.DrainingUntil != nil {
		out += fmt.Sprintf(" (draining here, %s left)", age(v.DrainingUntil.Sub(now)))
	}
	return out
}

// seen is how old what is said of a VIP is.
func seen(v control.VIPStatus) string {
	if v.Holder == nil {
		return "-"
	}
	return fmt.Sprintf("%d ms ago", v.AgeMS)
}

func orNothing(ms int64) string {
	if ms <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", ms)
}

// held lists the VIPs that a node holds.
func held(s *control.Status, node string) string {
	var names []string
	for _, v := range s.VIPs {
		for _, h := range v.Holders {
			if h == node {
				names = append(names, v.Name)
			}
		}
	}
	return dash(strings.Join(names, ","))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func ago(now time.Time, t *time.Time) string {
	if t == nil {
		return "-"
	}
	return age(now.Sub(*t)) + " ago"
}

// age prints a duration in its two largest units.
func age(d time.Duration) string {
	d = max(d, 0)
	day, hour, minute, second := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case day > 0:
		return fmt.Sprintf("%dd %dh", day, hour)
	case hour > 0:
		return fmt.Sprintf("%dh %dm", hour, minute)
	case minute > 0:
		return fmt.Sprintf("%dm %ds", minute, second)
	}
	return fmt.Sprintf("%ds", second)
}

func poolsCommand(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "pools",
		Short: "Show the pools and how their servers are",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd, 3*time.Second)
			defer cancel()
			pools, err := o.client().Pools(ctx)
			if err != nil {
				return err
			}
			return printAs(cmd, format, pools, "POOL\tBALANCE\tSERVER\tADDRESS\tSTATE\tWEIGHT\tZONE\tACTIVE\tREQUESTS\tFAILURES\tREASON", func(t io.Writer) {
				for _, p := range pools {
					for _, s := range p.Servers {
						weight := fmt.Sprint(s.Weight)
						if s.Weight != s.Wanted {
							weight += fmt.Sprintf(" (of %d)", s.Wanted)
						}
						if s.Share > 0 && s.Share < 100 {
							weight += fmt.Sprintf(" slow start %d%%", s.Share)
						}
						if s.Backup {
							weight += " backup"
						}
						active := fmt.Sprint(s.Active)
						if s.MaxConns > 0 {
							active += fmt.Sprintf("/%d", s.MaxConns)
						}
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", p.Name, balance(p), s.Name, dash(s.Address), s.State, weight, dash(s.Zone), active, s.Requests, s.Failures, dash(s.Reason))
					}
				}
			})
		},
	}
	outputFlag(cmd, &format)
	return cmd
}

// balance is a pool's rule and what goes with it.
func balance(p control.Pool) string {
	text := p.Balance
	if p.HashKey != "" {
		text += " " + p.HashKey
	}
	if p.Sticky != "" {
		text += ", sticky " + p.Sticky
	}
	if p.Queue > 0 {
		text += fmt.Sprintf(", queue %d/%d", p.Waiting, p.Queue)
	}
	return text
}

func configCommand(o *options) *cobra.Command {
	var effective, changes, generations bool
	cmd := &cobra.Command{
		Use:   "config --effective|--changes|--generations",
		Short: "Print the configuration in force, or what of it was changed at run time",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if generations && !effective && !changes {
				return showGenerations(cmd, o, "table")
			}
			if effective == changes || generations {
				return usageError{errors.New("config: say --effective or --changes, or --generations")}
			}
			ctx, cancel := within(cmd, 3*time.Second)
			defer cancel()
			print := o.client().Config
			if changes {
				print = o.client().Changes
			}
			text, err := print(ctx)
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().BoolVar(&effective, "effective", false, "what is in force, with every default filled in")
	cmd.Flags().BoolVar(&generations, "generations", false, "what was applied to the cluster; the same as hactl generations")
	cmd.Flags().BoolVar(&changes, "changes", false, "what was changed at run time, beside the file")
	return cmd
}
