package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestE6RegularExpressionsAreBounded(t *testing.T) {
	parse := func(text string) error {
		_, err := testHost().Parse("proxyd.toml", []byte(text))
		return err
	}
	for _, c := range []struct{ why, expression, want string }{
		{"long", strings.Repeat("a", maxPattern+1), "is longer than 1000 characters"},
		{"repeats beyond RE2's bound", "(a{100}){11}", "is no regular expression of RE2"},
		{"larger than its text", "(a{100}b{100}){9}[a-z]{1000}c{1000}d{1000}e{1000}", "is too large"},
	} {
		err := parse(fmt.Sprintf("[[route]]\npath = '~%s'\nto = ['a:1']\n", c.expression))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Parse = %v, want %q in it", c.why, err, c.want)
		}
	}
	var b strings.Builder
	for i := range maxPatterns + 1 {
		fmt.Fprintf(&b, "[[route]]\nhost = 'h%d.example'\npath = '~x'\nto = ['a:1']\n", i)
	}
	if err := parse(b.String()); err == nil || !strings.Contains(err.Error(), "is the 1001th regular expression of the file; at most 1000 are allowed") {
		t.Errorf("Parse = %v", err)
	}
}
