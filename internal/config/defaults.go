package config

import "time"

// Every default stands here and nowhere else, apart from those that depend on other
// keys: a route's name, its listeners, the node's name (the hostname) and cluster.bind.

func defaultConfig() *Config {
	return &Config{
		VIP:      map[string]*VIP{},
		Listener: map[string]*Listener{},
		Pool:     map[string]*Pool{},
		Node:     Node{State: "/var/lib/proxyd"},
		Cluster:  Cluster{Name: "proxyd", Fence: "auto", Timing: timingPresets()["normal"], Handover: "auto", Drain: 10 * time.Minute},
		Limits: Limits{
			Conns:         50000,
			HeaderBytes:   32 << 10,
			URIBytes:      8 << 10,
			Fields:        100,
			Requests:      10000,
			Body:          10 << 20,
			Held:          256 << 20,
			HeaderTime:    10 * time.Second,
			Handshakes:    10000,
			HandshakeTime: 10 * time.Second,
			Idle:          60 * time.Second,
			MinRate:       512,
		},
		Admin:  Admin{Socket: "/run/proxyd/admin.sock", Listen: "127.0.0.1:9900"},
		Policy: map[string]*Policy{},
		TLS:    TLS{Profile: "intermediate"},
		Trace:  Trace{RequestID: "X-Request-Id", Sample: 0.01},
		Log:    Log{Level: "info", Access: Access{Format: "json", Output: "stdout", Sample: 1, Slow: time.Second, Redact: []string{"authorization", "cookie"}}},
	}
}

// defaultPort is of the cluster's addresses.
const defaultPort = 7946

// timingPresets are the names that cluster.timing knows.
func timingPresets() map[string]Timing {
	const ms = time.Millisecond
	return map[string]Timing{
		"fast":   {Preset: "fast", Heartbeat: 20 * ms, Lease: 120 * ms, Guard: 20 * ms},
		"normal": {Preset: "normal", Heartbeat: 40 * ms, Lease: 240 * ms, Guard: 30 * ms},
		"slow":   {Preset: "slow", Heartbeat: 200 * ms, Lease: 1200 * ms, Guard: 150 * ms},
	}
}

// defaultSpread is the preempt of a VIP with spread.
const defaultSpread = 10 * time.Second

func defaultTrack() *Track {
	return &Track{Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3, Weight: Weight{Veto: true}}
}

func defaultVIP() *VIP { return &VIP{} }

func defaultListener() *Listener { return &Listener{Unknown: "404", HTTP2: true, Underscores: "drop"} }

func defaultCert() *Cert { return &Cert{} }

// defaultDirectory is of the CA that is asked unless the file names another.
const defaultDirectory = "https://acme-v02.api.letsencrypt.org/directory"

func defaultEAB() *EAB { return &EAB{} }

func defaultACMEDNS() *ACMEDNS { return &ACMEDNS{} }

// defaultListeners are those of a file that defines none, with or without certificates.
func defaultListeners(secure bool) map[string]*Listener {
	web := defaultListener()
	web.Name, web.Address, web.HTTP2 = "http", []string{":80"}, false
	if !secure {
		return map[string]*Listener{"http": web}
	}
	web.Redirect = "https"
	own := defaultListener()
	own.Name, own.Address, own.TLS = "https", []string{":443"}, true
	return map[string]*Listener{"http": web, "https": own}
}

func defaultPool() *Pool {
	return &Pool{
		Balance:  "round_robin",
		Protocol: "http1",
		Host:     "client",
		Framing:  "as-sent",
		Location: "rewrite",
		Passive: Passive{
			MaxFails:    3,
			FailTimeout: 30 * time.Second,
			On:          []string{"connect", "timeout", "502", "503", "504"},
		},
		Retry: Retry{Attempts: 2, Budget: 0.20, On: []string{"connect", "timeout"}},
		Timeout: Timeout{
			Connect: 5 * time.Second,
			Send:    60 * time.Second,
			Read:    60 * time.Second,
			Tunnel:  time.Hour,
			Idle:    90 * time.Second,
		},
	}
}

// defaultHashKey is of a pool with balance = "hash".
const defaultHashKey = "ip"

func defaultServer() *Server { return &Server{Weight: 1} }

func defaultCheck() *Check {
	return &Check{
		Type:     "http",
		Method:   "GET",
		Path:     "/",
		Interval: 5 * time.Second,
		Timeout:  2 * time.Second,
		Rise:     2,
		Fall:     3,
		Status:   "200-399",
	}
}

func defaultRoute() *Route {
	return &Route{Slash: "keep", Upgrade: []string{"websocket"}, Log: true}
}

func defaultRespond() *Respond {
	return &Respond{Status: 200, Type: "text/plain; charset=utf-8"}
}

func defaultRedirect() *Redirect { return &Redirect{Status: 308} }

func defaultQueue() *Queue { return &Queue{Size: 100, Wait: 2 * time.Second} }

func defaultSticky() *Sticky { return &Sticky{Cookie: "srv"} }

func defaultEject() *Eject { return &Eject{Max: 0.5} }

func defaultBreaker() *Breaker { return &Breaker{Errors: 0.5, Open: 10 * time.Second} }

func defaultPolicy() *Policy { return &Policy{} }

func defaultExpires() *Expires { return &Expires{} }

func defaultCompress() *Compress {
	return &Compress{
		Types: []string{"text/*", "application/json", "application/javascript", "application/xml", "application/wasm", "image/svg+xml", "+json", "+xml"},
		Min:   1 << 10,
		With:  []string{"zstd", "br", "gzip"},
	}
}

func defaultFiles() *Files { return &Files{Index: []string{"index.html"}} }

func defaultMirror() *Mirror { return &Mirror{Percent: 100} }

func defaultRewrite() *Rewrite { return &Rewrite{} }

func defaultRotate() *Rotate { return &Rotate{Size: 100 << 20, Keep: 7} }
