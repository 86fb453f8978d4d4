package config

import (
	"slices"
	"strings"
)

// unbuiltKeys lists the keys of the full schema that this version does not have, by
// the table they belong to ("" is the root). Whoever builds one adds its field to the
// schema and takes it out here; a test sees to it that no key is in both.
func unbuiltKeys(table string) []string {
	switch table {
	case "":
		return []string{"cache", "stream", "discover"}
	case "node":
		return []string{"region"}
	case "pool.*":
		return []string{"discover", "zone"}
	case "pool.*.retry":
		return []string{}
	case "policy.*":
		return []string{"allow", "deny", "conns", "rate", "ban", "waf", "basic", "jwt", "forward",
			"cors", "cache"}
	case "admin":
		return []string{"tokens"}
	}
	return nil
}

// unbuiltKey says whether the key at p is in the schema but not in this version.
func unbuiltKey(p path) bool {
	table, key, nested := cutLast(p.pattern())
	if !nested {
		table, key = "", p.pattern()
	}
	return slices.Contains(unbuiltKeys(table), key)
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// unbuiltValue returns what to say of a value that the schema has and this version
// does not, or "". It follows the name of the key.
func unbuiltValue(p path, raw any) string {
	s, _ := raw.(string)
	if s == "" {
		return ""
	}
	quoted := `"` + s + `" is not built yet`
	switch p.pattern() {
	case "node.trusted_proxies", "pool.*.servers":
		if strings.HasPrefix(s, "file:") {
			return quoted + "; write the list itself"
		}
	case "pool.*.server.addr", "route.to":
		if strings.HasPrefix(s, "unix:") {
			return quoted + "; use host:port"
		}
	}
	return ""
}
