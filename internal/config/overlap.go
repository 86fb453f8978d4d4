package config

import (
	"regexp"
	"regexp/syntax"
	"strings"
)

// An overlap tells whether two regular expressions can match the same path. It walks
// through both programs at once, breadth first, over paths in their normal form alone,
// so that what it finds is a shortest path that both match.
type overlap struct {
	effort int // states that may still be looked at, of all questions together
}

// maxEffort bounds what the questions of one file take together: about a second.
const maxEffort = 1 << 22

// Answers of common.
type answer uint8

const (
	disjoint answer = iota
	common
	unclear // it would take too long to tell
)

// A pair is how far both programs have come with one path.
type pair struct {
	a, b  uint32
	shape shape
	begun bool // a character was read
	ended bool // the end of the path was asserted
}

// A step is how a pair was reached first.
type step struct {
	from int32
	char byte // 0 if none was read
}

// common finds a path that both expressions match. Both are known to compile.
func (o *overlap) common(a, b string) (example string, is answer) {
	pa, err := program("(?s:.*)(?:" + a + ")(?s:.*)")
	if err != nil {
		return "", unclear
	}
	pb, err := program("(?s:.*)(?:" + b + ")(?s:.*)")
	if err != nil {
		return "", unclear
	}
	first := pair{a: uint32(pa.Start), b: uint32(pb.Start)}
	queue, steps := []pair{first}, []step{{from: -1}}
	seen := map[pair]bool{first: true}
	for at := 0; at < len(queue); at++ {
		if o.effort--; o.effort < 0 {
			return "", unclear
		}
		now := queue[at]
		reach := func(next pair, char byte) {
			if !seen[next] {
				seen[next] = true
				queue, steps = append(queue, next), append(steps, step{int32(at), char})
			}
		}
		ia, ib := &pa.Inst[now.a], &pb.Inst[now.b]
		doneA, doneB := ia.Op == syntax.InstMatch, ib.Op == syntax.InstMatch
		switch {
		case doneA && doneB:
			if now.shape.whole() {
				return verified(spell(steps, at), a, b)
			}
		case !doneA && !consumes(ia):
			now.free(ia, func(next pair, out uint32) { next.a = out; reach(next, 0) })
		case !doneB && !consumes(ib):
			now.free(ib, func(next pair, out uint32) { next.b = out; reach(next, 0) })
		case !doneA && !doneB && !now.ended:
			for _, c := range []byte(pathChars) {
				shape, ok := now.shape.after(c)
				if ok && ia.MatchRune(rune(c)) && ib.MatchRune(rune(c)) {
					reach(pair{a: ia.Out, b: ib.Out, shape: shape, begun: true}, c)
				}
			}
		}
	}
	return "", disjoint
}

// verified says common if both expressions match the path, which they do unless a word
// boundary was let through that is none.
func verified(path, a, b string) (string, answer) {
	for _, expression := range []string{a, b} {
		if re, err := regexp.Compile(expression); err != nil || !re.MatchString(path) {
			return "", unclear
		}
	}
	return path, common
}

// consumes says whether an instruction reads a character.
func consumes(i *syntax.Inst) bool {
	switch i.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	}
	return false
}

// free calls reach for what follows an instruction that reads nothing. A word boundary
// is let through: what is found then is more than there is, never less.
func (p pair) free(i *syntax.Inst, reach func(next pair, out uint32)) {
	switch i.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		reach(p, i.Out)
		reach(p, i.Arg)
	case syntax.InstCapture, syntax.InstNop:
		reach(p, i.Out)
	case syntax.InstEmptyWidth:
		asserts := syntax.EmptyOp(i.Arg)
		if asserts&(syntax.EmptyBeginText|syntax.EmptyBeginLine) != 0 && p.begun {
			return
		}
		if asserts&(syntax.EmptyEndText|syntax.EmptyEndLine) != 0 {
			p.ended = true
		}
		reach(p, i.Out)
	}
}

// spell returns the characters on the way to the pair at a place.
func spell(steps []step, at int) string {
	var text []byte
	for i := int32(at); i >= 0; i = steps[i].from {
		if c := steps[i].char; c != 0 {
			text = append(text, c)
		}
	}
	for i, j := 0, len(text)-1; i < j; i, j = i+1, j-1 {
		text[i], text[j] = text[j], text[i]
	}
	return string(text)
}

// pathChars are what a path in its normal form is made of, the most readable first.
const pathChars = "abcdefghijklmnopqrstuvwxyz0123456789/-._ABCDEFGHIJKLMNOPQRSTUVWXYZ~!$&'()*+,;=:@%\"<>[]^`{|}"

// A shape is how far a path in its normal form has come: it begins with a slash, has no
// empty and no dot segments, and two digits after each percent sign.
type shape uint8

const (
	empty shape = iota
	slash       // at the beginning of a segment
	dot         // the segment is "."
	dots        // the segment is ".."
	inside
	percent
	digit
)

// after returns the shape with one more character.
func (s shape) after(c byte) (shape, bool) {
	hex := '0' <= c && c <= '9' || 'A' <= c && c <= 'F'
	switch s {
	case empty:
		return slash, c == '/'
	case percent:
		return digit, hex && c >= '2'
	case digit:
		return inside, hex
	}
	switch c {
	case '/':
		return slash, s == inside
	case '%':
		return percent, true
	case '.':
		if s == slash || s == dot {
			return s + 1, true
		}
	}
	return inside, true
}

// whole says whether the path may end here.
func (s shape) whole() bool { return s == slash || s == inside }

// under is an expression for the paths that a prefix route takes.
func under(prefix string) string {
	return "^" + regexp.QuoteMeta(strings.TrimSuffix(prefix, "/*")) + "(?:/|$)"
}
