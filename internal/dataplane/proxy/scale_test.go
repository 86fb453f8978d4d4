package proxy

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/config"
	"proxyd/internal/dataplane/filter"
)

func large(routes, pools int) *config.Config {
	c := base()
	c.Route = nil
	for i := range pools {
		name := fmt.Sprint("pool", i)
		c.Pool[name] = pool(name, "192.0.2.1:80", "192.0.2.2:80")
	}
	for i := range routes {
		c.Route = append(c.Route, &config.Route{
			Name: fmt.Sprint("route", i), Host: []string{fmt.Sprintf("h%d.example.com", i%(routes/10+1))}, Path: fmt.Sprintf("/p%d/*", i), Pool: fmt.Sprint("pool", i%pools),
		})
	}
	return c
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := large(n, 100)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := compile(c, nil, Steering{}, 2, filter.Env{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, _ := start(b, large(n, 100))
			r := prometheus.NewRegistry()
			r.MustRegister(p)
			for b.Loop() {
				if _, err := r.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
