package config

import (
	_ "embed"
	"strings"
	"text/template"
)

// TemplateData is what `hactl init` knows of a host. Fields that are empty become a
// comment that shows how they are written.
type TemplateData struct {
	Node      string   // this host's name; empty: its hostname
	Cluster   string   // name of the cluster; empty: "proxyd"
	Join      []string // addresses of every node, the same on each; empty: no cluster
	Secret    string   // path of the cluster's key
	VIP       string   // "203.0.113.10/24"; empty: no virtual address
	Interface string   // where the VIP's subnet is
	Host      string   // of the first route; empty: any host
	To        []string // its servers; empty: an answer that says proxyd works
}

//go:embed template.toml
var templateText string

// Template returns a commented configuration for a host. That of another host of the
// cluster differs in Node alone, or in nothing if Node is empty. What it is given is
// written as it is; Parse tells whether it is right.
func Template(data TemplateData) string {
	t := template.Must(template.New("template.toml").Funcs(template.FuncMap{"quote": quote, "list": quotedList}).Parse(templateText))
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		panic("config: template.toml: " + err.Error()) // it has no way to fail but a mistake in it
	}
	return b.String()
}

func quotedList(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = quote(s)
	}
	return "[" + join(quoted) + "]"
}
