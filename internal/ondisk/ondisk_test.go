package ondisk

import (
	"errors"
	"strings"
	"testing"
)

func TestLaterVersionsAreRefused(t *testing.T) {
	for text, newer := range map[string]bool{
		`{}`: false, `{"version":1}`: false, `{"version":2}`: false, `{"version":3,"more":[1]}`: true,
		`[1,2]`: false, `7`: false, `{`: false, ``: false, `{"version":"x"}`: false,
	} {
		err := Check([]byte(text), 2)
		if errors.Is(err, ErrNewer) != newer {
			t.Errorf("%s: %v", text, err)
		}
		if newer && !strings.Contains(err.Error(), "version 3") {
			t.Errorf("%s: the error does not say which: %v", text, err)
		}
	}
}
