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
				if _, err := compile(c, nil, Steering{}, nil, 2, nil, filter.Env{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkScrape is a page of 1,000 routes and 100 pools of 10 servers, all in use.
func BenchmarkScrape(b *testing.B) {
	conf := base()
	conf.Pool, conf.Route = map[string]*config.Pool{}, nil
	for i := range 100 {
		name := fmt.Sprint("pool", i)
		servers := make([]string, 10)
		for k := range servers {
			servers[k] = fmt.Sprintf("10.0.%d.%d:80", i, k)
		}
		conf.Pool[name] = pool(name, servers...)
	}
	for i := range 1000 {
		conf.Route = append(conf.Route, &config.Route{Name: fmt.Sprint("route", i), Path: fmt.Sprint("/", i, "/*"), Pool: fmt.Sprint("pool", i%100)})
	}
	p, _ := start(b, conf)
	for i := range 20000 {
		x := get("h", fmt.Sprint("/", i%1000, "/x"))
		begin(p, x)
		respond(p, x, []int{200, 304, 404}[i%3])
		p.End(x, nil)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(p)
	series := 0
	b.ReportAllocs()
	for b.Loop() {
		families, err := r.Gather()
		if err != nil {
			b.Fatal(err)
		}
		series = 0
		for _, f := range families {
			series += len(f.Metric)
		}
	}
	b.ReportMetric(float64(series), "series")
}
