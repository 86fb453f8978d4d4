package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"proxyd/internal/dataplane"
)

// flood plays n exchanges with whatever a hostile client and a hostile server can choose.
func flood(p *Plane, random *rand.Rand, n int) {
	word := func() []byte { return fmt.Appendf(nil, "%x", random.Uint64()) }
	web := &dataplane.Listener{Name: "web"}
	for i := range n {
		x := get(string(word())+".example.com", "/"+string(word()))
		if x.Request.Method = dataplane.Method(random.IntN(len(methods))); x.Request.Method == dataplane.MethodOther {
			x.Request.MethodText = word()
		}
		x.Request.Header.Add(dataplane.UserAgent, word(), word())
		x.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte(word()[:4])), uint16(i))
		if begin(p, x) == dataplane.Next {
			respond(p, x, 100+random.IntN(900))
		}
		p.End(x, nil)
		p.Refused(web, x.Client, &dataplane.Malformed{Status: 400, Reason: string(word()), Detail: string(word())})
	}
}

// What clients and servers send makes no series but those of the known methods and
// registered codes, of which there is an end.
func TestHostileInputMakesNoSeries(t *testing.T) { // E11
	p, _ := start(t, base())
	for method := range methods { // all that a series may be of
		for _, code := range append(codes[1:], 999) {
			x := get("h", "/")
			x.Request.Method = dataplane.Method(method)
			if begin(p, x) == dataplane.Next {
				respond(p, x, code)
			}
			p.End(x, nil)
		}
	}
	before := gather(t, p)
	flood(p, rand.New(rand.NewPCG(1, 2)), 10000)
	after := gather(t, p)
	for key := range after {
		if _, known := before[key]; !known {
			t.Errorf("%s came", key)
		}
	}
	if most := len(methods)*len(codes) + 300; len(after) > most {
		t.Errorf("there are %d series, want at most %d", len(after), most)
	}
}
