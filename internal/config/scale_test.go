package config

import (
	"fmt"
	"strings"
	"testing"
)

// manyRoutes is the text of a file with n routes, each with a host and a prefix.
func manyRoutes(n int) []byte {
	var b strings.Builder
	b.WriteString("[node]\nname = \"n\"\n[pool.web]\nservers = [\"192.0.2.1:80\"]\n")
	for i := range n {
		fmt.Fprintf(&b, "\n[[route]]\nhost = \"host%d.example\"\npath = \"/part%d/*\"\npool = \"web\"\n", i, i)
	}
	return []byte(b.String())
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			text := manyRoutes(n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse("test.toml", text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
