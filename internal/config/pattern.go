package config

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// What a regular expression may cost (E6). They are RE2, so that a match takes time in
// proportion to its text; these bound the factor and what all of them take at load.
const (
	maxPattern      = 1000 // bytes of one
	maxInstructions = 5000 // of its program
	maxPatterns     = 1000 // of a file
)

// regex gives the expression of a value that is "~" and a regular expression.
func regex(s string) (expression string, ok bool) { return strings.CutPrefix(s, "~") }

// Regex returns the expression of a path that is one.
func (r *Route) Regex() (expression string, ok bool) { return regex(r.Path) }

// compileRegex reads an expression. The error follows it.
func compileRegex(expression string) (*regexp.Regexp, error) {
	switch {
	case expression == "":
		return nil, errors.New("has no expression")
	case expression[0] == '*':
		return nil, errors.New(`begins as nginx writes it; write "~(?i)" for any case`)
	case len(expression) > maxPattern:
		return nil, fmt.Errorf("is longer than %d characters", maxPattern)
	}
	re, err := regexp.Compile(expression)
	if err != nil {
		var wrong *syntax.Error
		if errors.As(err, &wrong) {
			return nil, fmt.Errorf("is no regular expression of RE2: %s: %q", wrong.Code, wrong.Expr)
		}
		return nil, fmt.Errorf("is no regular expression of RE2: %w", err)
	}
	if prog, err := program(expression); err != nil || len(prog.Inst) > maxInstructions {
		return nil, errors.New("is too large")
	}
	return re, nil
}

func program(expression string) (*syntax.Prog, error) {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, err
	}
	return syntax.Compile(tree.Simplify())
}

// countRegex reports the first expression beyond what a file may have.
func (d *decoder) countRegex(p path) {
	if d.patterns++; d.patterns == maxPatterns+1 {
		d.bad(p, "is the %dth regular expression of the file; at most %d are allowed", d.patterns, maxPatterns)
	}
}

// checkAsked judges what a route asks of a value: a text, "~" and a regular expression, or
// "*".
func (d *decoder) checkAsked(p path, value string) {
	if d.spoilt(p) {
		return
	}
	expression, ok := regex(value)
	if !ok {
		return
	}
	if _, err := compileRegex(expression); err != nil {
		d.bad(p, "%q %v", value, err)
		return
	}
	d.countRegex(p)
}
