package acme

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const tsigSecret = "c2VjcmV0IG9mIHRoZSBkbnM="

// nameServer is one for example.com that takes updates, signed with the key acme.
type nameServer struct {
	records map[string][]string
	at      string
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{records: map[string][]string{}, at: l.Addr().String()}
	accept := func(h dns.Header) dns.MsgAcceptAction { // updates too
		if h.Bits&0x8000 != 0 {
			return dns.MsgIgnore
		}
		return dns.MsgAccept
	}
	s := &dns.Server{Listener: l, Handler: n, TsigSecret: map[string]string{"acme.": tsigSecret}, MsgAcceptFunc: accept}
	up := make(chan struct{})
	s.NotifyStartedFunc = func() { close(up) }
	done := make(chan struct{})
	go func() { // ends with Shutdown
		defer close(done)
		_ = s.ActivateAndServe()
	}()
	<-up
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-done
	})
	return n
}

func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r := new(dns.Msg)
	r.SetReply(q)
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "ns.example.com.", Mbox: "ops.example.com."}
	switch {
	case q.Opcode == dns.OpcodeUpdate:
		if t := q.IsTsig(); t == nil || w.TsigStatus() != nil {
			r.Rcode = dns.RcodeRefused
			break
		}
		r.SetTsig("acme.", dns.HmacSHA256, signedWithin, int64(q.IsTsig().TimeSigned))
		for _, rr := range q.Ns {
			txt, name := rr.(*dns.TXT), rr.Header().Name
			if rr.Header().Class == dns.ClassNONE {
				delete(n.records, name+txt.Txt[0])
			} else {
				n.records[name+txt.Txt[0]] = []string{q.Question[0].Name}
			}
		}
	case !dns.IsSubDomain("example.com.", q.Question[0].Name):
		r.Rcode = dns.RcodeRefused
	case q.Question[0].Name == "example.com.":
		r.Answer = []dns.RR{soa}
	default:
		r.Rcode, r.Ns = dns.RcodeNameError, []dns.RR{soa}
	}
	_ = w.WriteMsg(r)
}

func TestUpdatesMakeAndRemoveRecords(t *testing.T) {
	n := newNameServer(t)
	u := &Update{Server: n.at, Algorithm: "hmac-sha256", Name: "acme", Secret: tsigSecret}
	const name, value = "_acme-challenge.a.b.example.com", "a value"
	for range 2 { // twice is no error
		if err := u.Present(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
	}
	if zone := n.records[name+"."+value]; len(zone) != 1 || zone[0] != "example.com." {
		t.Errorf("records %v", n.records)
	}
	for range 2 {
		if err := u.Remove(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
	}
	if len(n.records) != 0 {
		t.Errorf("left %v", n.records)
	}
	for what, bad := range map[string]*Update{
		"REFUSED":    {Server: n.at},
		"says":       {Server: n.at, Algorithm: "hmac-sha256", Name: "acme", Secret: "b3RoZXI="},
		"no zone":    {Server: n.at, Algorithm: "hmac-sha256", Name: "acme", Secret: tsigSecret},
		"connection": {Server: "127.0.0.1:1"},
	} {
		of := name
		if what == "no zone" {
			of = "_acme-challenge.example.org"
		}
		if err := bad.Present(t.Context(), of, value); err == nil || !strings.Contains(err.Error(), what) && what != "says" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAHookIsRun(t *testing.T) {
	dir := t.TempDir()
	hook, out := filepath.Join(dir, "hook"), filepath.Join(dir, "out")
	script := "#!/bin/sh\necho \"$@\" >> " + out + "\n[ \"$1\" = present ] || { echo it is not there >&2; exit 3; }\n"
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h := &Hook{Command: hook}
	if err := h.Present(t.Context(), "_acme-challenge.example.com", "value"); err != nil {
		t.Error(err)
	}
	if err := h.Remove(t.Context(), "_acme-challenge.example.com", "value"); err == nil || !strings.Contains(err.Error(), "it is not there") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a hook that fails: %v", err)
	}
	text, _ := os.ReadFile(out)
	if got := string(text); got != "present _acme-challenge.example.com value\ncleanup _acme-challenge.example.com value\n" {
		t.Errorf("the hook was run with %q", got)
	}
}
