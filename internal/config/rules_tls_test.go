package config

import "testing"

func TestWhereARedirectToHTTPSLeads(t *testing.T) {
	for _, c := range []struct {
		name   string
		secure map[string][]string // addresses by listener
		want   string
	}{
		{"nobody has tls", nil, "443"},
		{"the usual port", map[string][]string{"https": {":443"}}, "443"},
		{"another port", map[string][]string{"https": {"10.0.0.1:8443", "[2001:db8::1]:8443"}}, "8443"},
		{"several ports", map[string][]string{"a": {":443"}, "b": {":8443"}}, "443"},
	} {
		conf := &Config{Listener: map[string]*Listener{"http": {Address: []string{":80"}}}}
		for name, addresses := range c.secure {
			conf.Listener[name] = &Listener{TLS: true, Address: addresses}
		}
		if got := conf.HTTPSPort(); got != c.want {
			t.Errorf("%s: port %s, want %s", c.name, got, c.want)
		}
	}
}

func TestACertificateOpensTheListenersForHTTPS(t *testing.T) {
	c, err := testHost().Parse("proxyd.toml", []byte("[[cert]]\ncert = \"/etc/ssl/shop.crt\"\nkey = \"/etc/ssl/shop.key\"\n[[route]]\nto = [\"10.0.1.5:80\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	web, secure := c.Listener["http"], c.Listener["https"]
	if len(c.Listener) != 2 || web.Address[0] != ":80" || web.Redirect != "https" || secure.Address[0] != ":443" || !secure.TLS {
		t.Errorf("the listeners are %+v and %+v", web, secure)
	}
}
