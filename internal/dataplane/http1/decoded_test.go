package http1

import (
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

// RFC 9110, 5.3: who passes lines of one name on must not change their order. Host goes
// first all the same.
func TestDecodedFieldsKeepTheirOrder(t *testing.T) {
	var d Decoder
	var r dataplane.Request
	d.Begin(&r, nil, Limits{HeaderBytes: 1 << 12, URIBytes: 1 << 10, Fields: 10})
	for _, f := range []string{":method GET", ":scheme https", ":authority example.com", ":path /",
		"x-list 1", "cookie a=1", "x-list 2", "x-list 3", "cookie b=2"} {
		name, value, _ := strings.Cut(f, " ")
		d.Field(name, value)
	}
	if _, err := d.End(true); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.Header {
		got = append(got, string(f.Name)+" "+string(f.Value))
	}
	if got, want := strings.Join(got, ", "), "Host example.com, x-list 1, cookie a=1; b=2, x-list 2, x-list 3"; got != want {
		t.Errorf("fields %q, want %q", got, want)
	}
}
