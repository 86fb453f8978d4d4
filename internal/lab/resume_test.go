package lab

import (
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"
)

// The drill is judged by each version of TLS for itself, and a client that failed did not resume.
func TestResumeIsJudged(t *testing.T) {
	for _, c := range []struct {
		name     string
		one, two Resumed
		broken   string
	}{
		{"all", Resumed{Version: tls.VersionTLS13, Asked: 200, Resumed: 200}, Resumed{Version: tls.VersionTLS12, Asked: 200, Resumed: 190}, ""},
		{"too few of one version", Resumed{Version: tls.VersionTLS13, Asked: 200, Resumed: 200}, Resumed{Version: tls.VersionTLS12, Asked: 200, Resumed: 189}, "TLS 1.2: 189 of 200"},
		{"some were not served", Resumed{Version: tls.VersionTLS13, Asked: 200, Resumed: 180, Failed: []error{io.EOF}}, Resumed{Version: tls.VersionTLS12, Asked: 200, Resumed: 200}, "EOF"},
		{"nobody came", Resumed{Version: tls.VersionTLS13}, Resumed{Version: tls.VersionTLS12, Asked: 1, Resumed: 1}, "TLS 1.3: 0 of 0"},
	} {
		var out strings.Builder
		err := Resume{Rounds: 1, Out: &out}.report([]*Resumed{&c.one, &c.two})
		if (err != nil) != (c.broken != "") || err != nil && (!errors.Is(err, ErrPromise) || !strings.Contains(err.Error(), c.broken)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.broken)
		}
		if !strings.Contains(out.String(), "TLS 1.2") {
			t.Errorf("%s: the table is %q", c.name, out.String())
		}
	}
}
