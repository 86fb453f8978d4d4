package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
	"proxyd/internal/history"
)

// answerTime is how long a question to all nodes may take.
const answerTime = 5 * time.Second

func historyCommand(o *options) *cobra.Command {
	var q control.HistoryQuery
	var format, since string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show what happened, as all nodes wrote it down",
		Long: `history shows what every node wrote down: who held what when and why, with losses and near
misses of heartbeats, permits, fitness and tracks, hand-overs, configurations, conflicts, repairs, faults, starts and stops. The
entries of all nodes are in one order: by term where one is known, else by time. It can be asked of any node.

What a node that is not reachable wrote last is not known here; NODES says up to when each is.`,
		Example: "  hactl history --since 24h --vip public\n  hactl history -n 20 -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wantFormat(format); err != nil {
				return err
			}
			var err error
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return usageError{err}
			}
			ctx, cancel := within(cmd, answerTime)
			defer cancel()
			h, err := o.client().History(ctx, q)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), h)
			}
			return printHistory(cmd.OutOrStdout(), h)
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "not before that: a time (RFC 3339) or how long ago (90m, 24h, 7d)")
	cmd.Flags().IntVarP(&q.N, "lines", "n", 50, "the latest so many; 0: all")
	cmd.Flags().StringVar(&q.VIP, "vip", "", "leave out what is about other VIPs")
	outputFlag(cmd, &format)
	return cmd
}

func printHistory(w io.Writer, h *control.History) error {
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	fmt.Fprintln(t, "TIME\tNODE\tTERM\tWHAT")
	for i := range h.Entries {
		printEntry(t, &h.Entries[i])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "NODES\tENTRIES\tUP TO")
	for _, n := range h.Tellers {
		fmt.Fprintf(t, "%s\t%d\t%s\n", n.Node, n.Entries, n.Latest.UTC().Format("2006-01-02 15:04:05Z"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if h.Fault != "" {
		fmt.Fprintf(w, "\nnot on this node's disk since: %s (%d failures, %d entries lost to it)\n", h.Fault, h.Errors, h.Lost)
	}
	return nil
}

func printEntry(w io.Writer, e *history.Entry) {
	term := "-"
	if e.Term != 0 {
		term = fmt.Sprint(e.Term)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Time.UTC().Format("2006-01-02 15:04:05.000Z"), e.Node, term, e.Sentence())
}

func whyCommand(o *options) *cobra.Command {
	var q control.WhyQuery
	var format string
	cmd := &cobra.Command{
		Use:   "why [VIP]",
		Short: "Tell why a VIP changed hands, with the evidence",
		Long: `why tells the last change of a VIP, or the one that made --term, in sentences, with the
timeline in milliseconds since the old holder's last sign of life, and what the other nodes saw. Without VIP it is the one
that changed last. It can be asked of any node. Exit code 4: no such change is known.`,
		Example: "  hactl why public\n  hactl why --term 1004 -o json",
		Args:    upTo(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wantFormat(format); err != nil {
				return err
			}
			if len(args) == 1 {
				q.VIP = args[0]
			}
			ctx, cancel := within(cmd, answerTime)
			defer cancel()
			s, err := o.client().Why(ctx, q)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), s)
			}
			printStory(cmd.OutOrStdout(), s)
			return nil
		},
	}
	cmd.Flags().Uint64Var(&q.Term, "term", 0, "the change that made this term; default: the last")
	outputFlag(cmd, &format)
	return cmd
}

func printStory(w io.Writer, s *history.Story) {
	for _, line := range s.Sentences {
		fmt.Fprintln(w, line)
	}
	if len(s.Timeline) > 0 {
		fmt.Fprintf(w, "\n%10s  as %s saw it\n", "ms", s.Teller)
	}
	for _, p := range s.Timeline {
		fmt.Fprintf(w, "%10.1f  %s\n", p.MS, p.Sentence())
	}
	for _, o := range s.Others {
		fmt.Fprintf(w, "\n%s saw\n", o.Node)
		for _, line := range o.Saw {
			fmt.Fprintln(w, "  "+line)
		}
	}
}

func watchCommand(o *options) *cobra.Command {
	var format string
	var screen bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show what happens as it happens, a line each; -w a screen",
		Long: `watch prints a line for each thing that this node sees or learns of from others, until
Ctrl-C, which is exit code 0. When proxyd ends it says so and ends with exit code 69. With -w it shows the status instead,
again every second, and stays when proxyd does not answer.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wantFormat(format); err != nil {
				return err
			}
			if screen {
				return statusScreen(cmd, o, format)
			}
			return o.client().Watch(cmd.Context(), func(e history.Entry) error {
				if format == "json" {
					return printLine(cmd.OutOrStdout(), e)
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %-12s  %s\n", e.Time.UTC().Format("2006-01-02 15:04:05.000Z"), e.Node, e.Sentence())
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&screen, "watch", "w", false, "the status, again every second, instead of lines")
	outputFlag(cmd, &format)
	return cmd
}

// parseSince reads a time, or how long before now it was. "" is the zero time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, fmt.Errorf("--since %s: want a time as in 2026-08-11T03:12:44Z, or how long ago, as in 90m, 24h, 7d", text)
	}
	return now.Add(-d), nil
}
