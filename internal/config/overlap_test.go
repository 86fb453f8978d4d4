package config

import (
	"math/rand/v2"
	"regexp"
	"testing"
)

func TestOverlapFindsAPathThatBothMatch(t *testing.T) {
	for _, c := range []struct {
		why, a, b string
		want      answer
		example   string
	}{
		{"extensions that differ", `\.(jpg|png)$`, `\.php$`, disjoint, ""},
		{"one extension in common", `\.(jpg|png)$`, `\.(gif|png)$`, common, "/.png"},
		{"an extension that ends another", `\.gz$`, `\.tar\.gz$`, common, "/.tar.gz"},
		{"case counts", `\.JPG$`, `\.jpg$`, disjoint, ""},
		{"case does not count", `(?i)\.JPG$`, `\.jpg$`, common, "/.jpg"},
		{"beginnings that differ", `^/api/`, `^/shop/`, disjoint, ""},
		{"beginning and end", `^/api/`, `\.php$`, common, "/api/.php"},
		{"a prefix route", `\.jpg$`, under("/assets/*"), common, "/assets/.jpg"},
		{"a prefix route that ends before", `^/assets\.jpg$`, under("/assets/*"), disjoint, ""},
		{"the query is no part of a path", `\?id=`, `^/`, disjoint, ""},
		{"no path has a dot segment", `/\.\./`, `^/`, disjoint, ""},
		{"no path has an empty segment", `//`, `^/`, disjoint, ""},
		{"a path begins with a slash", `^[a-z]`, `^/`, disjoint, ""},
		{"repetitions", `^/a{3}$`, `^/a{2,5}$`, common, "/aaa"},
		{"numbers", `^/\d+$`, `^/[a-z]+$`, disjoint, ""},
		{"escapes", `%2F`, `^/x`, common, "/x%2F"},
		{"lower case escapes are not normal", `%2f`, `^/`, disjoint, ""},
		{"end and beginning", `^/$`, `^/x`, disjoint, ""},
	} {
		o := overlap{effort: maxEffort}
		if example, is := o.common(c.a, c.b); is != c.want || example != c.example {
			t.Errorf("%s: common(%q, %q) = %q, %v, want %q, %v", c.why, c.a, c.b, example, is, c.example, c.want)
		}
	}
}

func TestOverlapGivesUp(t *testing.T) {
	o := overlap{effort: 10}
	if _, is := o.common(`a{20}b`, `a{20}c`); is != unclear {
		t.Errorf("common = %v with no effort left", is)
	}
}

// What common says is true of every path of a small world.
func TestOverlapAgreesWithTrying(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	atoms := []string{"a", "b", "/", "[ab]", ".", "(a|b/)", "^/", "$", "a*", "b+", "(?i)A", `\.`}
	expression := func() (s string) {
		for range 1 + rnd.IntN(4) {
			s += atoms[rnd.IntN(len(atoms))]
		}
		return s
	}
	var paths []string
	for n := range 3 * 3 * 3 * 3 * 3 {
		path := "/"
		for ; n > 0; n /= 3 {
			path += string("ab/"[n%3])
		}
		if normal, err := canonicalPath(path); err == nil && normal == path {
			paths = append(paths, path)
		}
	}
	for range 2000 {
		a, b := expression(), expression()
		ra, rb := regexp.MustCompile(a), regexp.MustCompile(b)
		o := overlap{effort: maxEffort}
		example, is := o.common(a, b)
		if is == common && !(ra.MatchString(example) && rb.MatchString(example)) {
			t.Errorf("common(%q, %q) = %q, which does not match both", a, b, example)
		}
		for _, path := range paths {
			if is != common && ra.MatchString(path) && rb.MatchString(path) {
				t.Errorf("common(%q, %q) = %v, and both match %q", a, b, is, path)
				break
			}
		}
	}
}
