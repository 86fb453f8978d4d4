package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// Texts says of what texts a configuration is made. Only Main is needed.
type Texts struct {
	Main    string // the file, which may include others
	Text    []byte // that it is taken to have; nil: it is read
	State   string // directory that has the changes made at run time; "": node.state of Main
	Changes []byte // that they are taken to be; nil: they are read
	// Included are the texts that the included files are taken to have, and all there are;
	// nil: they are read.
	Included map[string][]byte
	// Own is the main file of this node, of which [node], [admin], cluster.bind and
	// cluster.witness are taken and not of the texts above; "": they say it themselves.
	Own string
	// Partial lets a file of changes that may not be read be left out, with a warning.
	Partial bool
}

// ChangesFile is the name, in node.state, of the file of what was changed at run time.
const ChangesFile = "changes.toml"

// Load reads the configuration that t names, with what it includes and what was changed
// at run time, as Parse reads one text.
func Load(t Texts) (*Config, error) { return thisHost().Load(t) }

// Load is the function Load on a host given by the caller.
func (h Host) Load(t Texts) (*Config, error) {
	j, err := h.join(t)
	if err != nil {
		return nil, err
	}
	return j.config()
}

// Files returns the file, what it includes now, and the patterns that say what it includes;
// of a file that cannot be read as far as that is known.
func (t Texts) Files() (names, patterns []string) { return thisHost().files(t) }

func (h Host) files(t Texts) (names, patterns []string) {
	j, names := &joiner{host: h}, []string{t.Main}
	text := t.Text
	if text == nil {
		text, _ = h.ReadFile(t.Main)
	}
	if !bytes.Contains(text, []byte("include")) && !bytes.Contains(text, []byte(`\`)) { // by which a key can be spelt otherwise
		return names, nil
	}
	main, err := j.read(t.Main, text)
	if err != nil {
		return names, nil
	}
	for _, x := range j.follow(main, t.Included) {
		if _, err := h.ReadFile(x.name); err == nil || t.Included[x.name] != nil {
			names = append(names, x.name)
		}
	}
	return names, j.globs
}

// A source is one text of a configuration.
type source struct {
	name   string
	file   int // its place in joiner.sources
	tree   map[string]any
	places *places
}

// A joiner puts the texts of a configuration together: what is included, the file
// itself, and over them what was changed at run time.
type joiner struct {
	host    Host
	sources []*source // the file itself first; position.file is a place in it
	globs   []string  // patterns of what is included
	state   string    // the directory of the changes; "": there is none
	over    *source   // what was changed at run time; nil: nothing

	tree     map[string]any
	places   *places
	problems Problems
	warnings Problems
}

// join reads and joins all that t names.
func (h Host) join(t Texts) (*joiner, error) {
	j, err := h.joinBase(t)
	if err != nil {
		return nil, err
	}
	if err := j.readChanges(t); err != nil {
		return nil, err
	}
	if j.over != nil {
		j.layOver(j.over)
	}
	return j, nil
}

// joinBase joins the file and what it includes.
func (h Host) joinBase(t Texts) (*joiner, error) {
	j := &joiner{host: h}
	main, err := j.read(t.Main, t.Text)
	if err != nil {
		return nil, err
	}
	parts := []*source{main}
	if main.tree["include"] != nil {
		parts = append(j.included(main, t.Included), main)
	}
	j.tree, j.places = parts[0].tree, parts[0].places
	for _, s := range parts[1:] {
		j.add(s)
	}
	if t.Own != "" {
		if err := j.takeOwn(t.Own); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// read takes one text in: nil is what the file has.
func (j *joiner) read(name string, text []byte) (*source, error) {
	if text == nil {
		var err error
		if text, err = j.host.ReadFile(name); err != nil {
			return nil, err
		}
	}
	s := &source{name: name, file: len(j.sources)}
	j.sources = append(j.sources, s)
	if len(text) > maxFile {
		return nil, Problems{{File: name, Line: 1, Col: 1, Msg: fmt.Sprintf("the file has %d bytes; at most %d are read", len(text), maxFile)}}
	}
	whole := string(text)
	all, problems, deep := scan(whole, s.file)
	if deep != nil {
		deep.File = name
		return nil, Problems{*deep}
	}
	var tree any // the library copies what it puts into a map
	if _, err := toml.Decode(whole, &tree); err != nil {
		p := syntaxProblem(err, whole)
		p.File = name
		return nil, Problems{p}
	}
	s.tree, s.places = tree.(map[string]any), all
	for _, p := range problems {
		p.File = name
		j.problems = append(j.problems, p)
	}
	return s, nil
}

// An inclusion is a file that is included, and where that is said.
type inclusion struct {
	name string
	at   position
}

// follow finds what the file includes, on disk or among the texts that are given, in the
// order of the patterns and, of each, of the names. Patterns are relative to the file.
func (j *joiner) follow(main *source, texts map[string][]byte) []inclusion {
	at := to("include")
	raw := main.tree["include"]
	delete(main.tree, "include")
	patterns, ok := elements(raw)
	if text, single := raw.(string); single {
		patterns, ok = []any{text}, true
	}
	if !ok {
		j.report(main.places.at(at).value, `include needs a list of file names, such as ["conf.d/*.toml"], not %s`, kindOf(raw))
		return nil
	}
	var found []inclusion
	seen := map[string]bool{main.name: true}
	for i, p := range patterns {
		where := main.places.at(at).value
		if e, ok := main.places.get(at.at(i)); ok {
			where = e.value
		}
		pattern, ok := p.(string)
		if !ok || pattern == "" {
			j.report(where, `include needs file names in quotes, such as "conf.d/*.toml", not %s`, kindOf(p))
			continue
		}
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(main.name), pattern)
		}
		j.globs = append(j.globs, pattern)
		names, err := j.glob(pattern, texts)
		switch {
		case err != nil:
			j.report(where, "include %q is no pattern of file names", p)
		case len(names) == 0 && !strings.ContainsAny(pattern, `*?[\`):
			j.report(where, "include: file %s does not exist", pattern)
		}
		for _, name := range names {
			if !seen[name] {
				seen[name] = true
				found = append(found, inclusion{name, where})
			}
		}
	}
	return found
}

// included reads what the file includes.
func (j *joiner) included(main *source, texts map[string][]byte) []*source {
	var parts []*source
	for _, x := range j.follow(main, texts) {
		s, err := j.read(x.name, texts[x.name])
		if problems := (Problems)(nil); errors.As(err, &problems) {
			j.problems = append(j.problems, problems...)
			continue
		} else if err != nil {
			j.report(x.at, "include: %v", err)
			continue
		}
		if s.tree["include"] != nil {
			j.report(s.places.at(to("include")).key, "include stands in %s alone, not in a file that is included", main.name)
			delete(s.tree, "include")
		}
		parts = append(parts, s)
	}
	return parts
}

// glob finds the files of a pattern, in the order of their names.
func (j *joiner) glob(pattern string, texts map[string][]byte) ([]string, error) {
	if texts == nil {
		return j.host.Glob(pattern)
	}
	var names []string
	for _, name := range sortedKeys(texts) {
		if ok, err := filepath.Match(pattern, name); err != nil {
			return nil, err
		} else if ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// readChanges reads what was changed at run time, if anything was.
func (j *joiner) readChanges(t Texts) error {
	j.state = t.State
	if j.state == "" {
		j.state = defaultConfig().Node.State
		if node, _ := j.tree["node"].(map[string]any); node != nil {
			if s, _ := node["state"].(string); s != "" {
				j.state = s
			}
		}
	}
	name := filepath.Join(j.state, ChangesFile)
	if t.Changes == nil {
		switch _, err := j.host.Stat(name); {
		case errors.Is(err, fs.ErrPermission) && t.Partial:
			j.warnings = append(j.warnings, Problem{File: name, Msg: "warning: it may not be read, so what was changed at run time is left out here"})
			return nil
		case err != nil && !errors.Is(err, fs.ErrPermission):
			return nil // no directory, no file: nothing was changed
		}
	}
	var err error
	j.over, err = j.read(name, t.Changes)
	return err
}

// config decodes, completes and checks what was joined.
func (j *joiner) config() (*Config, error) {
	delete(j.tree, "include") // it has been followed, or was refused
	d := &decoder{host: j.host, sources: j.sources, places: j.places, problems: j.problems, refused: map[path]bool{}, gone: map[path]bool{},
		withLength: map[path]bool{}, labels: labelsOf(j.tree), overlap: overlap{effort: maxEffort}, tags: tags{}}
	c := defaultConfig()
	c.Warnings = j.warnings
	d.table(root, j.tree, reflect.ValueOf(c).Elem())
	d.complete(c)
	d.check(c)
	if len(d.problems) > 0 {
		return nil, d.problems.sorted(j.names())
	}
	c.Warnings = Problems(c.Warnings).sorted(j.names())
	c.Name, c.Hash = j.sources[0].name, c.hash()
	return c, nil
}

// names are those of the texts, in their order.
func (j *joiner) names() []string {
	names := make([]string, len(j.sources))
	for i, s := range j.sources {
		names[i] = s.name
	}
	return names
}

func (j *joiner) report(at position, format string, args ...any) {
	j.problems = append(j.problems, j.problem(at, format, args...))
}

func (j *joiner) problem(at position, format string, args ...any) Problem {
	return Problem{File: j.sources[at.file].name, Line: int(max(1, at.line)), Col: int(max(1, at.col)), Msg: fmt.Sprintf(format, args...)}
}

// at says where a position is, for a message: "file:line:column".
func (j *joiner) at(p position) string {
	return fmt.Sprintf("%s:%d:%d", j.sources[p.file].name, p.line, p.col)
}
