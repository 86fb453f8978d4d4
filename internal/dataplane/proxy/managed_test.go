package proxy

import (
	"crypto/tls"
	"testing"
)

// Only what is under way is answered: a token that is known, by GET, before the redirect to
// https and any route; and a handshake for a name with a challenge that offers nothing else.
func TestOnlyChallengesUnderWayAreAnswered(t *testing.T) {
	p := &Plane{}
	conf := &tls.Config{NextProtos: []string{"http/1.1"}}
	if got := p.challengeable(conf); got != conf {
		t.Error("without a challenge the handshake is another one")
	}
	answer := &tls.Certificate{Certificate: [][]byte{[]byte("answer")}}
	p.managed.Store(&Managed{Tokens: map[string][]byte{"token": []byte("token.thumb")}, Handshakes: map[string]*tls.Certificate{"example.com": answer}})
	next := p.challengeable(conf)
	for _, c := range []struct {
		name   string
		protos []string
		answer bool
		refuse bool
	}{
		{"example.com", []string{"acme-tls/1"}, true, false},
		{"EXAMPLE.com", []string{"acme-tls/1"}, true, false},
		{"example.org", []string{"acme-tls/1"}, false, true},
		{"example.com", []string{"acme-tls/1", "http/1.1"}, false, false},
		{"example.com", []string{"http/1.1"}, false, false},
		{"example.com", nil, false, false},
	} {
		got, err := next.GetConfigForClient(&tls.ClientHelloInfo{ServerName: c.name, SupportedProtos: c.protos})
		switch {
		case (err != nil) != c.refuse:
			t.Errorf("%s with %v: %v", c.name, c.protos, err)
		case err == nil && c.answer != (len(got.Certificates) == 1):
			t.Errorf("%s with %v: answered %v", c.name, c.protos, !c.answer)
		case err == nil && !c.answer && got != conf:
			t.Errorf("%s with %v: not as any other client", c.name, c.protos)
		}
	}
}
