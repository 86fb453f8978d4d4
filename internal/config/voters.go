package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// ErrNoVoter is returned where a text has no cluster.join, or not the voter to change.
var ErrNoVoter = errors.New("cluster.join does not have it")

// Voters returns cluster.join of a text with the default port; none if it has none.
func Voters(text []byte) []netip.AddrPort {
	var tree map[string]any
	if _, err := toml.Decode(string(text), &tree); err != nil {
		return nil
	}
	raw, _ := lookup(tree, to("cluster", "join"))
	list, ok := elements(raw)
	if one, single := raw.(string); single {
		list, ok = []any{one}, true
	}
	if !ok {
		return nil
	}
	var out []netip.AddrPort
	for _, e := range list {
		word, _ := e.(string)
		if a, err := netip.ParseAddrPort(word); err == nil {
			out = append(out, a)
		} else if a, err := netip.ParseAddr(word); err == nil {
			out = append(out, netip.AddrPortFrom(a, defaultPort))
		}
	}
	return out
}

// SetVoters returns the text with another cluster.join; all else of it stays.
func SetVoters(text []byte, voters []netip.AddrPort) ([]byte, error) {
	if len(Voters(text)) == 0 {
		return nil, ErrNoVoter
	}
	words := make([]string, len(voters))
	for i, v := range voters {
		if words[i] = quote(v.String()); v.Port() == defaultPort {
			words[i] = quote(v.Addr().String())
		}
	}
	out, err := setValue(string(text), to("cluster", "join"), "["+strings.Join(words, ", ")+"]")
	if err != nil {
		return nil, err
	}
	if !slices.Equal(Voters([]byte(out)), voters) {
		return nil, fmt.Errorf("cluster.join: %w", ErrOwn)
	}
	return []byte(out), nil
}

// ReplaceVoter returns the text with one voter in the place of another.
func ReplaceVoter(text []byte, from, to netip.AddrPort) ([]byte, error) {
	voters := Voters(text)
	i := slices.Index(voters, from)
	if i < 0 {
		return nil, ErrNoVoter
	}
	voters[i] = to
	return SetVoters(text, voters)
}

// setValue gives a key that a text has another value, and proves that nothing else changed.
func setValue(text string, p path, value string) (string, error) {
	for _, s := range statements(text) {
		if s.header || s.at != p || s.value == "" {
			continue
		}
		line := text[s.start:s.end]
		at := strings.LastIndex(line, s.value)
		out := text[:s.start] + line[:at] + value + line[at+len(s.value):] + text[s.end:]
		var before, after map[string]any
		_, err := toml.Decode(text, &before)
		_, more := toml.Decode(out, &after)
		if err != nil || more != nil {
			break
		}
		removeAt(before, p)
		removeAt(after, p)
		if !reflect.DeepEqual(before, after) {
			break
		}
		return out, nil
	}
	return "", fmt.Errorf("%s cannot be changed in this text; give it a line of its own", strings.Join(p.parts(), "."))
}

// Rehome returns the main text of a node as that of another: with its name, directory and
// address in cluster.join, each if it is given. Comments in [node] and [admin] are lost.
func Rehome(text []byte, name, state, bind string) ([]byte, error) {
	var tree map[string]any
	if _, err := toml.Decode(string(text), &tree); err != nil {
		return nil, err
	}
	mine := map[string]any{}
	for _, p := range ownPaths() {
		if v, ok := lookup(tree, p); ok {
			setAt(mine, p, v)
		}
	}
	for _, set := range []struct {
		at    path
		value string
	}{{to("node", "name"), name}, {to("node", "state"), state}} {
		if set.value != "" {
			setAt(mine, set.at, set.value)
		}
	}
	if _, bound := lookup(mine, to("cluster", "bind")); bound && bind != "" {
		setAt(mine, to("cluster", "bind"), bind)
	}
	var b bytes.Buffer
	e := toml.NewEncoder(&b)
	e.Indent = ""
	if err := e.Encode(mine); err != nil {
		return nil, err
	}
	return Splice(text, b.Bytes())
}
