package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/freeport"
)

func TestAdminAddressesMoveWithTheFile(t *testing.T) {
	address, one, two := freeport.Address(t), freeport.Address(t), freeport.Address(t)
	conf := func(listen, metrics string) string {
		return "admin.listen = \"" + listen + "\"\nadmin.metrics = \"" + metrics + "\"\n" + site(address, "one")
	}
	p := launch(t, conf(one, ""))
	answers := func(at string) bool {
		c, err := net.DialTimeout("tcp", at, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		status, _ := get(t, "http://"+at+"/metrics")
		return status == http.StatusOK
	}
	for _, step := range []struct{ listen, metrics string }{
		{one, ""},
		{two, ""},
		{two, one},
		{one, two}, // each is in the way of the other
		{"", two},
		{"", ""},
	} {
		p.write(conf(step.listen, step.metrics))
		if _, err := p.Reload(t.Context()); err != nil {
			t.Fatalf("%+v: %v", step, err)
		}
		for _, at := range []string{one, two} {
			if want := at == step.listen || at == step.metrics; answers(at) != want {
				t.Errorf("%+v: %s answers: %v, want %v", step, at, !want, want)
			}
		}
	}
	p.write(conf(one, ""))
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.write(conf(address, "")) // taken by a listener
	if _, err := p.Reload(t.Context()); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "admin.listen") {
		t.Errorf("Reload to an address that is taken = %v, want it refused by its key", err)
	}
	if !answers(one) {
		t.Error("a refused reload closed the admin address")
	}
}

func TestAdminSocketThatWasRemovedIsMadeAnew(t *testing.T) {
	p := launch(t, site(freeport.Address(t), "one"))
	for range 2 { // the second is that of the first
		p.eventually("a socket to remove", func() bool { return os.Remove(p.dir+"/admin.sock") == nil })
		p.eventually("an answer on the admin socket", func() bool {
			_, err := control.Dial(p.dir + "/admin.sock").Status(t.Context()) // on a connection of its own
			return err == nil
		})
	}
}

// Whatever a reload changes of the cluster must start its part anew, or nothing happens. Its
// VIPs are given anew each time.
func TestEveryKeyOfTheClusterCounts(t *testing.T) {
	typ := reflect.TypeFor[config.Cluster]()
	for i := range typ.NumField() {
		key := typ.Field(i).Tag.Get("toml")
		if key == "" || key == "-" || key == "name" || key == "bind" || key == "notify" || key == "drain" { // these stay until a restart; the last two need no new start
			continue
		}
		k := new(cluster)
		k.set.Store(&addresses{config: &config.Config{}})
		changed := new(config.Config)
		other(t, reflect.ValueOf(&changed.Cluster).Elem().Field(i))
		if k.live(changed) {
			t.Errorf("a change of cluster.%s is ignored by a reload", key)
		}
	}
}

// other gives v another value than it has.
func other(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("other")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Struct:
		if p, ok := v.Addr().Interface().(interface{ UnmarshalText([]byte) error }); ok {
			for _, text := range []string{"192.0.2.1/24", "192.0.2.1:80"} {
				if p.UnmarshalText([]byte(text)) == nil {
					return
				}
			}
		}
		other(t, v.Field(0))
	default:
		t.Fatalf("no other value for a %s", v.Type())
	}
}
