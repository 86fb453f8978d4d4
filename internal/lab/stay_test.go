package lab

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// Every client must have stayed; who was not served did not.
func TestStayIsJudged(t *testing.T) {
	for _, c := range []struct {
		name   string
		r      Stayed
		broken string
	}{
		{"all", Stayed{Name: "hash", Asked: 1000, Same: 1000}, ""},
		{"one is elsewhere", Stayed{Name: "hash", Asked: 1000, Same: 999, Another: []string{"client 1 of web-1 came to web-2"}}, "came to web-2"},
		{"one was not served", Stayed{Name: "hash", Asked: 1000, Same: 999, Failed: []error{io.EOF}}, "EOF"},
		{"nobody came", Stayed{Name: "hash"}, "0 of 0"},
	} {
		var out strings.Builder
		err := Stay{Rounds: 1, Clients: 1000, Out: &out}.report([]*Stayed{&c.r})
		if (err != nil) != (c.broken != "") || err != nil && (!errors.Is(err, ErrPromise) || !strings.Contains(err.Error(), c.broken)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.broken)
		}
		if !strings.Contains(out.String(), "all the same") {
			t.Errorf("%s: the table is %q", c.name, out.String())
		}
	}
}

func TestStayersHaveAddressesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range newStayers(1000) {
		if seen[c.from.String()] || !crowdNet.Contains(c.from) {
			t.Errorf("%v is another's, or not of %v", c.from, crowdNet)
		}
		seen[c.from.String()] = true
	}
}
