package route

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
)

func TestExpressionsThatNeedNoRun(t *testing.T) {
	for _, c := range []struct {
		text string
		all  bool
		yes  []string
		no   []string
	}{
		{`\.(jpg|jpeg|png|gif|css|js)$`, true, []string{"/a.jpg", "/x/.js"}, []string{"/a.jpgx", "/a.JPG", "/jpg"}},
		{`(?i)\.(jpg|jpeg|png|gif|css|js)$`, true, []string{"/a.jpg", "/a.JpG", "/x.CSS"}, []string{"/a.jpgx", "/css"}},
		{`^/(img|static)/`, true, []string{"/img/", "/static/x"}, []string{"/img", "/a/img/"}},
		{`^/(a|ab)$`, true, []string{"/a", "/ab"}, []string{"/abc", "/"}},
		{`^/img/.*\.(png|gif)$`, true, []string{"/img/.png", "/img/a/b.gif"}, []string{"/img/png", "/x/a.png"}},
		{`^/(a|ab).*b$`, true, []string{"/ab", "/abb", "/a/b"}, []string{"/a", "/b"}},
		{`.*\.php$`, true, []string{"/a.php"}, []string{"/a.php5"}},
		{`^/v[0-9]/`, true, []string{"/v1/", "/v9/x"}, []string{"/vx/", "/v10/"}},
		{`^/items/[0-9]+$`, false, []string{"/items/42"}, []string{"/items/", "/items/a", "/x"}},
		{`^/a[^/]*\.html$`, false, []string{"/a.html", "/ab.html"}, []string{"/a/.html", "/b.html", "/a.htm"}},
		{`private`, false, []string{"/private", "/x/privates"}, []string{"/priv"}},
		{`^$`, false, nil, []string{"/"}},
		{`(?i)/admin(/|$)`, false, []string{"/admin", "/x/ADMIN/"}, []string{"/admins"}},
	} {
		e, err := newExpression(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if e.all != c.all {
			t.Errorf("%s: decided by its literals = %v, want %v", c.text, e.all, c.all)
		}
		for _, path := range c.yes {
			if !e.match([]byte(path)) {
				t.Errorf("%s does not match %s", c.text, path)
			}
		}
		for _, path := range c.no {
			if e.match([]byte(path)) {
				t.Errorf("%s matches %s", c.text, path)
			}
		}
	}
}

func TestExpressionAgreesWithRegexp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	atoms := []string{"a", "b", "ab", "/", "[ab]", ".", "(a|b/|ab)", "(?i)", "(a|)", "b?", "a*", "b+", ".*", "[A-C]", "a{2}", "(?i:a/b)", `\.`, "(?:^/|b)", "^", "$"}
	for range 20_000 {
		text := ""
		if rnd.IntN(2) == 0 {
			text = "^/"
		}
		for range 1 + rnd.IntN(5) {
			text += atoms[rnd.IntN(len(atoms))]
		}
		if rnd.IntN(2) == 0 {
			text += "$"
		}
		re, err := regexp.Compile(text)
		if err != nil {
			continue
		}
		e, err := newExpression(text)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			path := "/"
			for range rnd.IntN(6) {
				path += string("abAB/."[rnd.IntN(6)])
			}
			if got, want := e.match([]byte(path)), re.MatchString(path); got != want {
				t.Fatalf("%s matches %s = %v, want %v", text, path, got, want)
			}
		}
	}
}

func FuzzExpression(f *testing.F) {
	f.Add(`(?i)\.(jpg|png)$`, "/a/B.JPG")
	f.Add(`^/a(b|c)?.*x$`, "/abx")
	f.Fuzz(func(t *testing.T, text, path string) {
		if !ascii(path) || len(text) > 100 {
			return
		}
		for i := range len(path) {
			if path[i] <= ' ' || path[i] == 0x7f { // no path has it
				return
			}
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return
		}
		e, err := newExpression(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := e.match([]byte(path)), re.MatchString(path); got != want {
			t.Errorf("%q matches %q = %v, want %v", text, path, got, want)
		}
	})
}

func BenchmarkExpression(b *testing.B) {
	for _, text := range []string{`(?i)\.(jpg|jpeg|png|gif|css|js)$`, `^/items/[0-9]+$`, `/private/`} {
		e, err := newExpression(text)
		if err != nil {
			b.Fatal(err)
		}
		for _, path := range []string{"/assets/images/2026/picture-of-a-cat.png", "/api/v1/things/17/and/others", "/items/1234"} {
			b.Run(fmt.Sprintf("%s %s", text, path), func(b *testing.B) {
				b.ReportAllocs()
				text := []byte(path)
				for b.Loop() {
					e.match(text)
				}
			})
		}
	}
}
