package config

import (
	"strings"
	"testing"
)

// G3: no target can be built from a request, so nobody has proxyd ask another host than those
// of the file. Wherever a target is named, what is a template elsewhere is refused.
func TestG3TargetsAreOfTheFile(t *testing.T) {
	for _, c := range []struct{ where, text string }{
		{"to", "[[route]]\nto = ['%s:80']\n"},
		{"to with a scheme", "[[route]]\nto = ['https://%s:443']\n"},
		{"servers of a pool", "[pool.app]\nservers = ['%s:80']\n[[route]]\npool = 'app'\n"},
		{"a server of a pool", "[[pool.app.server]]\naddr = '%s:80'\n[[route]]\npool = 'app'\n"},
		{"pool of a route", "[pool.app]\nservers = ['a:1']\n[[route]]\npool = '%s'\n"},
		{"split", "[pool.app]\nservers = ['a:1']\n[pool.other]\nservers = ['a:2']\n[[route]]\nsplit = { '%s' = 1, other = 1 }\n"},
		{"mirror", "[pool.app]\nservers = ['a:1']\n[[route]]\npool = 'app'\nmirror = { pool = '%s' }\n"},
	} {
		for _, template := range []string{"{header.X-Target}", "{query.url}", "{host}", "{uri}", "{path}", "$host", "${host}", "%{host}"} {
			_, err := testHost().Parse("proxyd.toml", []byte(strings.ReplaceAll(c.text, "%s", template)))
			if err == nil {
				t.Errorf("%s: %s is taken", c.where, template)
			} else if strings.Contains(err.Error(), "unknown key") {
				t.Errorf("%s: the case is not what it says: %v", c.where, err)
			}
		}
		if _, err := testHost().Parse("proxyd.toml", []byte(strings.ReplaceAll(c.text, "%s", "app"))); err != nil {
			t.Errorf("%s: %v", c.where, err) // the same with a name of the file
		}
	}
}
