package route

import (
	"regexp/syntax"
	"strings"
)

// maxLiterals is how many texts a set of literals may have.
const maxLiterals = 64

// literals are texts one of which must be there.
type literals struct {
	texts  []string  // with fold in lower case
	fold   bool      // the case of letters does not count
	exact  bool      // an expression asks for just these, not for less
	letter bool      // a text has letters whose case counts
	edge   [4]uint64 // a bit for each byte that one of them begins with; of what is at the end, ends with
}

// leading takes as many parts from the front as make a set of literals, and returns the
// others. It is nil if there is none, or if nothing at all would do.
func leading(parts []*syntax.Regexp) (*literals, []*syntax.Regexp) {
	l := &literals{texts: []string{""}, exact: true}
	rest := parts
	for len(rest) > 0 && l.add(rest[0], false) {
		rest = rest[1:]
	}
	if !l.finish(false) {
		return nil, parts
	}
	return l, rest
}

// trailing does so from the back.
func trailing(parts []*syntax.Regexp) (*literals, []*syntax.Regexp) {
	l := &literals{texts: []string{""}, exact: true}
	rest := parts
	for len(rest) > 0 && l.add(rest[len(rest)-1], true) {
		rest = rest[:len(rest)-1]
	}
	if !l.finish(true) {
		return nil, parts
	}
	return l, rest
}

// add puts what one part stands for before or behind each text, unless that is too much.
func (l *literals) add(part *syntax.Regexp, front bool) bool {
	more := literals{}
	if !more.read(part) || len(more.texts)*len(l.texts) > maxLiterals {
		return false
	}
	var texts []string
	for _, a := range l.texts {
		for _, b := range more.texts {
			if front {
				texts = append(texts, b+a)
			} else {
				texts = append(texts, a+b)
			}
		}
	}
	l.texts, l.fold, l.letter = texts, l.fold || more.fold, l.letter || more.letter
	return true
}

// read fills an empty set with all that a part of an expression can stand for.
func (l *literals) read(part *syntax.Regexp) bool {
	switch part.Op {
	case syntax.OpEmptyMatch:
		l.texts = []string{""}
	case syntax.OpLiteral:
		text := string(part.Rune)
		if !ascii(text) {
			return false
		}
		letters := strings.ToLower(text) != strings.ToUpper(text)
		l.fold = letters && part.Flags&syntax.FoldCase != 0
		l.letter = letters && !l.fold
		l.texts = []string{text}
	case syntax.OpCharClass:
		for i := 0; i < len(part.Rune); i += 2 {
			for r := part.Rune[i]; r <= part.Rune[i+1]; r++ {
				if r >= 0x80 || len(l.texts) == maxLiterals {
					return false
				}
				l.texts = append(l.texts, string(r))
			}
		}
		l.letter = true
	case syntax.OpCapture:
		return l.read(part.Sub[0])
	case syntax.OpQuest:
		if !l.read(part.Sub[0]) {
			return false
		}
		l.texts = append(l.texts, "")
	case syntax.OpConcat:
		l.texts = []string{""}
		for _, sub := range part.Sub {
			if !l.add(sub, false) {
				return false
			}
		}
	case syntax.OpAlternate:
		for _, sub := range part.Sub {
			one := literals{}
			if !one.read(sub) || len(l.texts)+len(one.texts) > maxLiterals {
				return false
			}
			l.texts, l.fold, l.letter = append(l.texts, one.texts...), l.fold || one.fold, l.letter || one.letter
		}
	default:
		return false
	}
	return len(l.texts) <= maxLiterals
}

// finish makes the set ready for comparing. It is false if the set asks for nothing.
func (l *literals) finish(ends bool) bool {
	l.exact = !(l.fold && l.letter)
	for i, text := range l.texts {
		if text == "" {
			return false
		}
		if l.fold {
			text = strings.ToLower(text)
			l.texts[i] = text
		}
		c := text[0]
		if ends {
			c = text[len(text)-1]
		}
		l.edge[c/64] |= 1 << (c % 64)
		if l.fold && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
			l.edge[c/64] |= 1 << (c % 64)
		}
	}
	return true
}

// before returns the length of the shortest text with which b begins (that b is, with
// whole), or -1.
func (l *literals) before(b []byte, whole bool) int {
	if len(b) == 0 || l.edge[b[0]/64]&(1<<(b[0]%64)) == 0 {
		return -1
	}
	best := -1
	for _, text := range l.texts {
		n := len(text)
		if n <= len(b) && (!whole || n == len(b)) && (best < 0 || n < best) && l.same(b[:n], text) {
			best = n
		}
	}
	return best
}

// behind reports whether b ends with one of the texts.
func (l *literals) behind(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	if last := b[len(b)-1]; l.edge[last/64]&(1<<(last%64)) == 0 {
		return false
	}
	for _, text := range l.texts {
		if n := len(text); n <= len(b) && l.same(b[len(b)-n:], text) {
			return true
		}
	}
	return false
}

// same compares texts of equal length.
func (l *literals) same(b []byte, text string) bool {
	if !l.fold {
		return string(b) == text
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != text[i] {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
