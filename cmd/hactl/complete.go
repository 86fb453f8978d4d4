package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Completions ask the running node; without one there are none.

// completeTime is how long a shell waits for them.
const completeTime = time.Second

func (o *options) completeServers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	pools, err := o.client().Pools(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []string
	for _, p := range pools {
		for _, s := range p.Servers {
			words = append(words, p.Name+"/"+s.Name+"\t"+s.State)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (o *options) completeMaintenance(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return []string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp
	case 1:
		return o.names("route"), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// names returns the names of the things of a kind in force, as the effective configuration
// has them: in its headers, and of routes each below its header, in double quotes.
func (o *options) names(kind string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	text, err := o.client().Config(ctx)
	if err != nil {
		return nil
	}
	var names []string
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			table = line
			if name, ok := strings.CutPrefix(line, "["+kind+"."); ok {
				names = append(names, strings.Trim(name, `"]`))
			}
		}
		key, value, _ := strings.Cut(line, "=")
		if kind == "route" && table == "[[route]]" && strings.TrimSpace(key) == "name" {
			if name, err := strconv.Unquote(strings.TrimSpace(value)); err == nil {
				names = append(names, name)
			}
		}
	}
	return names
}
