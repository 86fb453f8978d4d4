package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScanFindsEveryKey(t *testing.T) {
	const text = `# a comment with [brackets] = and "quotes"
acme.email = "x"
"quoted.key" . 'lit' = 'a # b'

[pool.api] # tail
servers = [ # first
  "a:1", # x
  "b:1",
]
check = { path = "/]}", "in terval" = 1 }
text = """
[no.header]
key = 1 \""""
  lit = '''
'a'''

[[route]]
host = "é"  # two bytes, one column
"é" = 1
[[route]]
to = [["x"], [{ a = 1 }]]
[route.timeout]
total = "1s"
`
	want := []string{
		"acme 2:1 2:1", "acme.email 2:6 2:14",
		"quoted.key 3:1 3:1", "quoted.key.lit 3:16 3:24",
		"pool 5:2 5:2", "pool.api 5:7 5:7",
		"pool.api.servers 6:1 6:11", "pool.api.servers[0] 7:3 7:3", "pool.api.servers[1] 8:3 8:3",
		"pool.api.check 10:1 10:9", "pool.api.check.path 10:11 10:18", "pool.api.check.in terval 10:25 10:39",
		"pool.api.text 11:1 11:8", "pool.api.lit 14:3 14:9",
		"route 17:3 17:3", "route[0] 17:1 17:1", "route[0].host 18:1 18:8", "route[0].é 19:1 19:7",
		"route[1] 20:1 20:1", "route[1].to 21:1 21:6",
		"route[1].to[0] 21:7 21:7", "route[1].to[0][0] 21:8 21:8",
		"route[1].to[1] 21:14 21:14", "route[1].to[1][0] 21:15 21:15", "route[1].to[1][0].a 21:17 21:21",
		"route[1].timeout 22:8 22:8", "route[1].timeout.total 23:1 23:9",
	}
	places, problems, tooDeep := scan(text, 0)
	var got []string
	for p, at := range places.all() {
		name := strings.TrimPrefix(strings.ReplaceAll(string(p), "\x00", "."), ".")
		for i := range 3 {
			name = strings.ReplaceAll(name, fmt.Sprintf("\x01%d", i), fmt.Sprintf("[%d]", i))
		}
		got = append(got, fmt.Sprintf("%s %d:%d %d:%d", name, at.key.line, at.key.col, at.value.line, at.value.col))
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("scan (-want +got):\n%s", diff)
	}
	if len(problems) > 0 || tooDeep != nil {
		t.Errorf("scan found problems: %v, %v", problems, tooDeep)
	}
}

func TestDeepNestingIsRefusedAtOnce(t *testing.T) {
	const n = 200_000
	for name, text := range map[string]string{
		"arrays":        "a = " + strings.Repeat("[", n) + strings.Repeat("]", n),
		"inline tables": strings.Repeat("a = {", n) + strings.Repeat("}", n),
		"dotted key":    strings.Repeat("a.", n) + "a = 1",
		"header":        "[" + strings.Repeat("a.", n) + "a]",
		"unfinished":    "a = " + strings.Repeat("[", n),
	} {
		_, err := Parse("proxyd.toml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), "nest deeper than 32 levels") {
			t.Errorf("%s: Parse = %v", name, err)
		}
	}
}
