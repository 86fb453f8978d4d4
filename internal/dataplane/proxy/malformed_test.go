package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every word that the parser and the engines give is counted under its own name.
func TestEveryReasonOfAMalformedRequestIsCounted(t *testing.T) { // E11
	found := map[string]bool{}
	for _, pattern := range []string{"../http1/*.go", "../http2/*.go", "../engine/*.go", "../proxyheader/*.go", "front.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if word, status := malformedWord(n); word != "" && status != "502" {
					found[word] = true
				}
				return true
			})
		}
	}
	if len(found) < 20 {
		t.Fatalf("only %d reasons found: has the way of making a Malformed changed?", len(found))
	}
	for word := range found {
		if _, known := malformedIndex[word]; !known {
			t.Errorf("%q is not in malformedReasons", word)
		}
	}
	for _, word := range malformedReasons[1:] {
		if !found[word] {
			t.Errorf("%q is in malformedReasons, and nobody says it", word)
		}
	}
}

// malformedWord returns the reason and status of malformed(status, "reason", ...) and of
// Malformed{Status: status, Reason: "reason"}.
func malformedWord(n ast.Node) (word, status string) {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "malformed" && len(n.Args) == 3 {
			return literal(n.Args[1]), literal(n.Args[0])
		}
	case *ast.CompositeLit:
		for _, e := range n.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			switch key, _ := kv.Key.(*ast.Ident); {
			case key == nil:
			case key.Name == "Reason":
				word = literal(kv.Value)
			case key.Name == "Status":
				status = literal(kv.Value)
			}
		}
	}
	return word, status
}

func literal(e ast.Expr) string {
	b, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	if b.Kind == token.STRING {
		s, _ := strconv.Unquote(b.Value)
		return s
	}
	return b.Value
}
