package config

import "strings"

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

// unbuiltValue returns what to say of a value that the schema has and this version
// does not, or "". It follows the name of the key.
func unbuiltValue(p path, raw any) string {
	s, _ := raw.(string)
	switch {
	case strings.HasPrefix(s, "file:"):
		if at := p.pattern(); at == "node.trusted_proxies" || at == "pool.*.servers" {
			return `"` + s + `" is not built yet; write the list itself`
		}
	case strings.HasPrefix(s, "unix:"):
		if at := p.pattern(); at == "pool.*.server.addr" || at == "route.to" {
			return `"` + s + `" is not built yet; use host:port`
		}
	}
	return ""
}
