package route

import (
	"regexp"
	"regexp/syntax"
)

// An expression is a regular expression on paths. What it asks of the path's beginning
// and end is looked at first, which turns most paths away at the cost of a comparison;
// where that is all it asks, the expression itself is never run.
type expression struct {
	re     *regexp.Regexp
	begins *literals // what the path must begin with; nil: anything
	ends   *literals // what must follow at its end; nil: anything
	whole  bool      // what it begins with is the whole path
	all    bool      // that is all it asks
}

func newExpression(text string) (*expression, error) {
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	e := &expression{re: re}
	e.analyse(sequence(tree.Simplify()))
	return e, nil
}

// match reports whether the expression matches within the path.
func (e *expression) match(path []byte) bool {
	n := 0
	if e.begins != nil {
		if n = e.begins.before(path, e.whole); n < 0 {
			return false
		}
	}
	if e.ends != nil && !e.ends.behind(path[n:]) {
		return false
	}
	return e.all || e.re.Match(path)
}

// analyse finds what the expression asks of beginning and end.
func (e *expression) analyse(parts []*syntax.Regexp) {
	fromStart := len(parts) > 0 && parts[0].Op == syntax.OpBeginText
	if fromStart {
		parts = parts[1:]
		e.begins, parts = leading(parts)
	}
	toEnd := len(parts) > 0 && parts[len(parts)-1].Op == syntax.OpEndText
	if toEnd {
		parts = parts[:len(parts)-1]
		if len(parts) == 0 {
			e.whole = e.begins != nil
		} else {
			e.ends, parts = trailing(parts)
		}
	}
	rest := len(parts) == 0 || len(parts) == 1 && isAnything(parts[0])
	between := fromStart && e.ends != nil // then only ".*" leaves nothing to ask
	e.all = rest && (e.begins != nil || e.ends != nil) && (e.begins == nil || e.begins.exact) && (e.ends == nil || e.ends.exact) &&
		(!between || len(parts) == 1) && fromStart == (e.begins != nil) && (!toEnd || e.whole || e.ends != nil)
}

// isAnything says whether a part is ".*". No path has a line feed.
func isAnything(part *syntax.Regexp) bool {
	return part.Op == syntax.OpStar && (part.Sub[0].Op == syntax.OpAnyCharNotNL || part.Sub[0].Op == syntax.OpAnyChar)
}

// sequence returns the parts of an expression in their order.
func sequence(tree *syntax.Regexp) []*syntax.Regexp {
	switch tree.Op {
	case syntax.OpConcat:
		var parts []*syntax.Regexp
		for _, sub := range tree.Sub {
			parts = append(parts, sequence(sub)...)
		}
		return parts
	case syntax.OpCapture:
		return sequence(tree.Sub[0])
	}
	return []*syntax.Regexp{tree}
}
