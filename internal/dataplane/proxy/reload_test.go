package proxy

import (
	"io"
	"runtime"
	"sync"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func TestAnExchangeSeesOneSnapshot(t *testing.T) {
	p, _ := start(t, base())
	x := get("h", "/")
	p.Match(x)
	conf := base()
	conf.Pool = map[string]*config.Pool{"other": pool("other", "192.0.2.9:80")}
	conf.Route = []*config.Route{{Name: "other", Pool: "other"}}
	if err := p.Apply(conf); err != nil {
		t.Fatal(err)
	}
	if v := p.Begin(x); v != dataplane.Next || x.Server.Pool != "app" || x.Config != 1 {
		t.Fatalf("Begin = %v, server of pool %q, config %d; want those of the first snapshot", v, x.Server.Pool, x.Config)
	}
	server := x.Server
	if !server.Gone() {
		t.Error("the server is not gone, though no snapshot has it")
	}
	if v := p.Retry(x, dataplane.ErrConnect); v != dataplane.Again || x.Server.Pool != "app" {
		t.Errorf("Retry = %v on pool %q", v, x.Server.Pool)
	}
	respond(p, x, 200)
	p.End(x, nil)
	if server.Active.Load() != 0 {
		t.Error("the old server was not given back")
	}
	x = get("h", "/")
	if begin(p, x); x.Server.Pool != "other" || x.Config != 2 {
		t.Errorf("the next exchange goes to pool %q by config %d", x.Server.Pool, x.Config)
	}
}

func TestHealthOutlivesAReload(t *testing.T) {
	p, _ := start(t, base())
	for range 6 {
		x := get("h", "/")
		begin(p, x)
		respond(p, x, 502)
		p.End(x, nil)
	}
	before := p.Pools()
	conf := base()
	conf.Pool["app"].Server = append(conf.Pool["app"].Server, config.Server{Addr: "192.0.2.3:80", Weight: 1})
	if err := p.Apply(conf); err != nil {
		t.Fatal(err)
	}
	for i, s := range p.Pools()[0].Servers {
		want := "up"
		if i < len(before[0].Servers) {
			want = "ejected"
		}
		if s.State != want {
			t.Errorf("%s is %s after the reload, want %s", s.Name, s.State, want)
		}
	}
	x := get("h", "/")
	if begin(p, x); x.Server.Name != "192.0.2.3:80" {
		t.Errorf("picked %s, want the only server that is up", x.Server.Name)
	}
}

func TestABadReloadChangesNothing(t *testing.T) {
	p, _ := start(t, base())
	before := p.current.Load()
	for name, change := range map[string]func(*config.Config){
		"pool":     func(c *config.Config) { c.Pool["app"].Balance = "fair" },
		"route":    func(c *config.Config) { c.Route[0].Path = "no-slash" },
		"regex":    func(c *config.Config) { c.Route[0].Path = "~(" },
		"redirect": func(c *config.Config) { c.Route[0].Redirect = &config.Redirect{To: "//evil"} },
		"log":      func(c *config.Config) { c.Log.Access.Output = "/nonexistent/dir/log" },
	} {
		c := base()
		change(c)
		if err := p.Apply(c); err == nil {
			t.Errorf("%s: Apply took it", name)
		}
		if p.current.Load() != before {
			t.Fatalf("%s: the snapshot changed", name)
		}
		for _, s := range before.pools["app"].Servers() {
			if s.Gone() {
				t.Errorf("%s: %s is gone", name, s.Name)
			}
		}
	}
}

// Every decision of every exchange goes on while configurations come and go. The race
// detector is the judge, and the books balance at the end.
func TestReloadUnderLoad(t *testing.T) {
	p, _ := start(t, base())
	p.opt.AccessLog = io.Discard // what is logged here would fill the memory of a busy machine
	if err := p.Apply(base()); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				runtime.Gosched() // for those that Apply waits for
				select {
				case <-stop:
					return
				default:
				}
				x := get("h", "/")
				if begin(p, x) == dataplane.Next {
					var err error
					switch (i + worker) % 4 {
					case 0:
						if p.Retry(x, dataplane.ErrConnect) == dataplane.Again {
							respond(p, x, 200)
						}
					case 1:
						respond(p, x, 503)
					case 2:
						err = dataplane.ErrClientGone
					default:
						respond(p, x, 200)
						err = dataplane.ErrRead
					}
					p.End(x, err)
					continue
				}
				p.End(x, nil)
			}
		})
	}
	for i := range 100 {
		c := base()
		if i%2 == 0 {
			c.Pool["app"] = pool("app", "192.0.2.2:80", "192.0.2.3:80", "192.0.2.4:80")
			c.Pool["app"].Balance = []string{"least_conn", "hash"}[i/2%2]
		}
		if i%3 == 0 {
			c.Limits.Fields = i
		}
		if err := p.Apply(c); err != nil {
			t.Fatal(err)
		}
		p.Pools()
	}
	close(stop)
	all.Wait()
	s := p.current.Load()
	for _, server := range s.pools["app"].Servers() {
		if n := server.Active.Load(); n != 0 {
			t.Errorf("%s still has %d exchanges", server.Name, n)
		}
	}
	for label, c := range s.counters {
		if n := c.inflight.Load(); n != 0 {
			t.Errorf("route %s still has %d requests", label, n)
		}
	}
}
