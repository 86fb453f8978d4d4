package config

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// Parse reads a configuration, fills in every default and checks every rule. name is
// the file's, for messages and for what the text includes. The error is Problems: all
// that is wrong, in the order of the file. Parse reads the files that are included, the
// files and variables that secrets refer to, and the hostname; nothing else of the host.
func Parse(name string, data []byte) (*Config, error) {
	return thisHost().Parse(name, data)
}

// Parse is the function Parse on a host given by the caller.
func (h Host) Parse(name string, data []byte) (*Config, error) {
	if data == nil {
		data = []byte{}
	}
	j, err := h.joinBase(Texts{Main: name, Text: data})
	if err != nil {
		return nil, err
	}
	return j.config()
}

// maxFile bounds the text: ten thousand routes need a tenth of it.
const maxFile = 16 << 20

// syntaxProblem gives an error of the TOML library in our form. The library counts
// columns in bytes, and puts a key that is there twice at the end of its line.
func syntaxProblem(err error, text string) Problem {
	var syntax toml.ParseError
	if !errors.As(err, &syntax) {
		return Problem{Line: 1, Col: 1, Msg: err.Error()}
	}
	p := Problem{Line: max(1, syntax.Position.Line), Col: 1, Msg: strings.ReplaceAll(syntax.Message, "\n", " ")}
	lines := strings.Split(text, "\n")
	if p.Line > len(lines) {
		return p
	}
	line := lines[p.Line-1]
	if strings.Contains(p.Msg, "already been") {
		p.Col = 1 + len(line) - len(strings.TrimLeft(line, " \t"))
	} else if n := min(syntax.Position.Col-1, len(line)); n > 0 {
		p.Col = 1 + utf8.RuneCountInString(line[:n])
	}
	return p
}

// labelsOf are what messages call the elements of the lists of tables.
func labelsOf(tree map[string]any) map[string][]string {
	return map[string][]string{"route": routeLabels(tree), "track": trackLabels(tree)}
}

// trackLabels are what messages call the tracks: their names, or what is looked at.
func trackLabels(tree map[string]any) []string {
	items, _ := elements(tree["track"])
	labels := make([]string, len(items))
	for i, item := range items {
		table, _ := item.(map[string]any)
		for _, key := range append([]string{"name"}, trackKinds()...) {
			if s, _ := table[key].(string); s != "" {
				labels[i] = s
				break
			}
		}
	}
	return labels
}

// routeLabels are what messages call the routes: their names, or host and path.
func routeLabels(tree map[string]any) []string {
	items, _ := elements(tree["route"])
	labels := make([]string, len(items))
	for i, item := range items {
		table, _ := item.(map[string]any)
		text := func(key string) string { s, _ := table[key].(string); return s }
		labels[i] = text("name")
		if labels[i] == "" {
			host := text("host")
			if hosts, _ := elements(table["host"]); len(hosts) > 0 {
				host, _ = hosts[0].(string)
			}
			labels[i] = host + text("path")
		}
	}
	return labels
}
