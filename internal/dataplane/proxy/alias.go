package proxy

import (
	"slices"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// underscoresOf is what a listener's configuration says of fields with an underscore.
func underscoresOf(l *config.Listener) dataplane.Underscores {
	switch l.Underscores {
	case "keep":
		return dataplane.KeepUnderscores
	case "reject":
		return dataplane.RejectUnderscores
	}
	return dataplane.DropUnderscores
}

// ownNames are the fields that servers are told by us and that the parser does not know, and those
// by which a route or a server is chosen, in lower case with hyphens. Those of policies are in
// their filters.
func ownNames(c *config.Config) []string {
	own := []string{"client-cert", "client-cert-chain", "early-data", "max-forwards"}
	add := func(name string) {
		if name = strings.ReplaceAll(strings.ToLower(name), "_", "-"); name != "" && !slices.Contains(own, name) {
			own = append(own, name)
		}
	}
	add(c.Trace.RequestID)
	for _, r := range c.Route {
		for name := range r.Header {
			add(name)
		}
	}
	for _, pool := range c.Pool {
		if name, is := strings.CutPrefix(pool.HashKey, "header:"); is {
			add(name)
		}
	}
	return own
}

// dropAliases removes what a server that tells no underscore from a hyphen could take for a
// field of ours: of the family X-Forwarded-*, or one that we choose by, or that we or a policy of
// the route set, add or remove (S9, B4). The parser has left out those that it knows.
func (s *snapshot) dropAliases(h *dataplane.Header, r *compiledRoute) {
	kept := (*h)[:0]
	for _, f := range *h {
		if f.ID != dataplane.Other || !isAlias(f.Name, s.own) && !isAlias(f.Name, r.filters.Asked) && !begins(f.Name, "x-forwarded-") {
			kept = append(kept, f)
		}
	}
	*h = kept
}

// isAlias reports whether a name has an underscore and is one of own but for that.
func isAlias(name []byte, own []string) bool {
	for _, o := range own {
		if len(o) == len(name) && begins(name, o) {
			return true
		}
	}
	return false
}

// begins reports whether a name that has an underscore begins with a text in lower case with
// hyphens, to a reader to whom an underscore is a hyphen.
func begins(name []byte, text string) bool {
	if len(name) < len(text) {
		return false
	}
	underscore := false
	for i, c := range name {
		underscore = underscore || c == '_'
		if i < len(text) && http1.Hyphened(c) != text[i] {
			return false
		}
	}
	return underscore
}
