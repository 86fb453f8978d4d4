package proxy

import (
	"os"
	"strings"
	"testing"

	"proxyd/internal/dataplane/files"
)

// Operators look up what the log says: every reason is in docs/OBSERVABILITY.md, those of files in docs/FILES.md.
func TestReasonsAreDocumented(t *testing.T) {
	page := func(name string) string {
		text, err := os.ReadFile("../../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, reasons, _ := strings.Cut(page("OBSERVABILITY.md"), "\n## Reasons\n")
	reasons, _, _ = strings.Cut(reasons, "\n## ")
	ofFiles := page("FILES.md")
	for _, c := range causes {
		where := reasons
		switch c.word {
		case files.Whole, files.Part, files.Slash, files.NotModified, files.Forbidden, files.NotFound, files.Method, files.Precondition, files.NoSuchRange, files.Failed:
			where = ofFiles
		}
		if !strings.Contains(where, "`"+c.word+"`") {
			t.Errorf("%s is in no table", c.word)
		}
	}
}
