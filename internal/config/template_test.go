package config

import (
	"slices"
	"strings"
	"testing"
)

func TestTemplateIsAConfiguration(t *testing.T) {
	pair := TemplateData{
		Node: "edge-1", Cluster: "edge", Join: []string{"10.0.0.11", "10.0.0.12"}, Secret: "/etc/proxyd/cluster.key",
		VIP: "203.0.113.10/24", Interface: "eth0", Host: "example.com", To: []string{"10.0.1.5:8080", "10.0.1.6:8080"},
	}
	second := pair
	second.Node = "edge-2"
	first, other := parsed(t, Template(pair)), parsed(t, Template(second))
	if first.Hash != other.Hash {
		t.Errorf("the two nodes have configurations %s and %s", first.Hash, other.Hash)
	}
	if other.Node.Name != "edge-2" || first.Cluster.Name != "edge" || len(first.Cluster.Join) != 2 || first.VIP["public"] == nil ||
		!slices.Equal(first.Route[0].To, pair.To) || !slices.Equal(first.Route[0].Host, []string{"example.com"}) {
		t.Errorf("Template lost something:\n%s", Template(pair))
	}
	for name, data := range map[string]TemplateData{
		"nothing": {},
		"alone":   {VIP: "2001:db8::10/64", Interface: "eth0"},
		"no VIP":  {Join: pair.Join, Secret: pair.Secret, To: pair.To},
	} {
		t.Run(name, func(t *testing.T) { parsed(t, Template(data)) })
	}
}

// What is commented out must be right too, or whoever takes the # away is misled.
func TestTemplateCommentsAreRight(t *testing.T) {
	var lines []string
	for line := range strings.Lines(Template(TemplateData{To: []string{"10.0.1.5:8080"}})) {
		if text, ok := strings.CutPrefix(line, "# "); ok && (strings.Contains(text, " = ") || strings.HasPrefix(text, "[")) {
			line = text
		}
		lines = append(lines, line)
	}
	text := strings.Join(lines, "")
	c := parsed(t, text)
	if len(c.Cluster.Join) != 2 || c.VIP["public"] == nil || c.Pool["web"] == nil || len(c.Route) != 2 {
		t.Errorf("the comments do not add up:\n%s", text)
	}
}
