package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep keys and values nest. The schema needs less than ten levels;
// a text with thousands would cost the square of them.
const maxDepth = 32

// scan finds the places of a text: the decoder of the TOML library gives positions only
// for errors of syntax, so this walks the text once more. It reads nothing into values, and a text that is no
// TOML makes it find less, not fail: errors of syntax are the library's affair. The
// problems are what TOML 1.0 forbids and the library lets pass. The last result says
// where the text nests too deep to be read at all.
func scan(text string, file int) (*places, []Problem, *Problem) {
	s := &scanner{text: text, file: int32(file), line: 1, col: 1, places: newPlaces(), arrays: map[path]int{}}
	for s.i < len(s.text) && s.tooDeep == nil {
		before := s.i
		s.entry()
		if s.i == before {
			s.next() // never stand still
		}
	}
	return s.places, s.problems, s.tooDeep
}

type scanner struct {
	text      string
	i         int
	file      int32 // of what it finds
	line, col int32
	places    *places
	arrays    map[path]int // elements seen of each array of tables
	table     path         // that the last header opened
	header    string
	inline    int // open { }
	depth     int // open { } and [ ]
	problems  []Problem
	tooDeep   *Problem
}

type word struct {
	name string
	at   position
}

// entry reads one header or one key with its value, and what is blank before it.
func (s *scanner) entry() {
	s.blank(true)
	switch {
	case s.i >= len(s.text):
	case s.peek() == '[':
		s.openTable()
	default:
		s.keyValue(s.table)
	}
}

func (s *scanner) openTable() {
	start, at := s.i, s.here()
	s.next()
	array := s.peek() == '['
	if array {
		s.next()
	}
	words := s.words()
	for s.peek() == ']' {
		s.next()
	}
	s.header = s.text[start:s.i]
	var p path
	for i, w := range words {
		p = p.key(w.name)
		if array && i == len(words)-1 {
			s.note(p, w.at, w.at)
			n := s.arrays[p]
			s.arrays[p] = n + 1
			p = p.at(n)
			s.note(p, at, at)
		} else if n := s.arrays[p]; n > 0 {
			p = p.at(n - 1)
		}
		s.note(p, w.at, w.at)
	}
	s.table = p
}

func (s *scanner) keyValue(base path) {
	words := s.words()
	if len(words) == 0 {
		return
	}
	p := base
	for _, w := range words {
		p = p.key(w.name)
		s.note(p, w.at, w.at)
	}
	s.blank(false)
	if s.peek() != '=' {
		return
	}
	s.next()
	s.blank(false)
	s.note(p, words[len(words)-1].at, s.here())
	s.value(p)
}

func (s *scanner) value(p path) {
	if !s.enter() {
		return
	}
	defer func() { s.depth-- }()
	switch s.peek() {
	case '"', '\'':
		s.quoted()
	case '[':
		s.array(p)
	case '{':
		s.inlineTable(p)
	default:
		for s.i < len(s.text) && !strings.ContainsRune(",]}#\r\n", rune(s.peek())) {
			s.next()
		}
	}
}

// enter goes one level down. When that is too deep, it gives up on the text.
func (s *scanner) enter() bool {
	if s.depth++; s.depth > maxDepth {
		s.giveUp()
		return false
	}
	return true
}

func (s *scanner) giveUp() {
	if s.tooDeep == nil {
		s.tooDeep = &Problem{Line: int(s.line), Col: int(s.col), Msg: fmt.Sprintf("keys and values nest deeper than %d levels", maxDepth)}
	}
	s.i = len(s.text)
}

func (s *scanner) array(p path) {
	s.next()
	for n := 0; ; n++ {
		s.blank(true)
		if s.i >= len(s.text) || s.peek() == ']' {
			s.next()
			return
		}
		before := s.i
		s.note(p.at(n), s.here(), s.here())
		s.value(p.at(n))
		s.blank(true)
		if s.peek() == ',' {
			s.next()
		}
		if s.i == before {
			return
		}
	}
}

// inlineTable reads { }. TOML 1.0 wants it on one line, newlines inside its values
// apart, and without a comma at the end; editors and other tools hold to that.
func (s *scanner) inlineTable(p path) {
	open := s.here()
	s.next()
	s.inline++
	defer func() { s.inline-- }()
	comma, broken := false, false
	for {
		broken = s.blank(true) || broken
		if s.i >= len(s.text) || s.peek() == '}' {
			break
		}
		before := s.i
		s.keyValue(p)
		broken = s.blank(true) || broken
		if comma = s.peek() == ','; comma {
			s.next()
		}
		if s.i == before {
			return
		}
	}
	s.next()
	if broken || comma {
		s.refuse(open, "an inline table { } stands on one line and has no comma before its end; give it a [header] of its own")
	}
}

// words reads a dotted key.
func (s *scanner) words() []word {
	var words []word
	for {
		s.blank(false)
		w := word{at: s.here()}
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			w.name = s.quoted()
		case bareByte(c):
			start := s.i
			for bareByte(s.peek()) {
				s.next()
			}
			w.name = s.text[start:s.i]
		default:
			return words
		}
		if words = append(words, w); len(words) > maxDepth {
			s.giveUp()
			return nil
		}
		s.blank(false)
		if s.peek() != '.' {
			return words
		}
		s.next()
	}
}

// quoted passes a string of any of the four kinds and returns what a key in quotes
// says. Values are read by the library.
func (s *scanner) quoted() string {
	quote := s.text[s.i : s.i+1]
	start := s.i
	closing := quote
	if strings.HasPrefix(s.text[s.i:], strings.Repeat(quote, 3)) {
		closing = strings.Repeat(quote, 3)
	}
	s.skip(len(closing))
	for s.i < len(s.text) && !strings.HasPrefix(s.text[s.i:], closing) {
		if s.peek() == '\\' && quote == `"` {
			if at := s.here(); s.i+1 < len(s.text) && (s.text[s.i+1] == 'e' || s.text[s.i+1] == 'x') {
				s.refuse(at, `the escapes \e and \x are not in TOML 1.0; write \u001b or \u00hh`)
			}
			s.next()
		}
		s.next()
	}
	s.skip(len(closing))
	for len(closing) == 3 && s.peek() == quote[0] { // """ may be preceded by two more
		s.next()
	}
	if quote == "'" {
		return strings.Trim(s.text[start:s.i], "'")
	}
	name, err := strconv.Unquote(s.text[start:s.i])
	if err != nil {
		return strings.Trim(s.text[start:s.i], `"`)
	}
	return name
}

// blank passes spaces and, if lines is true, newlines and comments. It says whether a
// line ended.
func (s *scanner) blank(lines bool) (ended bool) {
	for s.i < len(s.text) {
		switch s.peek() {
		case ' ', '\t':
		case '\r', '\n':
			if !lines {
				return ended
			}
			ended = true
		case '#':
			if !lines {
				return ended
			}
			for s.i < len(s.text) && s.peek() != '\n' {
				s.next()
			}
			continue
		default:
			return ended
		}
		s.next()
	}
	return ended
}

// note keeps the first place of a key; a value seen later completes it.
func (s *scanner) note(p path, key, value position) {
	if old, ok := s.places.get(p); ok {
		if value == key || old.value != old.key {
			value = old.value
		}
		key = old.key
	}
	s.places.put(p, place{key: key, value: value, header: s.header, inline: s.inline > 0})
}

func (s *scanner) refuse(at position, msg string) {
	s.problems = append(s.problems, Problem{Line: int(at.line), Col: int(at.col), Msg: msg})
}

func (s *scanner) here() position { return position{line: s.line, col: s.col, file: s.file} }

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.i >= len(s.text) {
		return 0
	}
	return s.text[s.i]
}

func (s *scanner) skip(n int) {
	for range n {
		s.next()
	}
}

// next passes one character. It does nothing at the end.
func (s *scanner) next() {
	if s.i >= len(s.text) {
		return
	}
	r, n := utf8.DecodeRuneInString(s.text[s.i:])
	s.i += n
	s.col++
	if r == '\n' {
		s.line++
		s.col = 1
	}
}

func bareByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
