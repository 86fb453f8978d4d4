// Package ondisk is the version of what a node keeps in node.state.
//
// Each file is JSON with a version. Within one a later release may add fields, which those
// who do not know them skip. A new version is for what cannot be skipped: a release before
// refuses it, and leaves the file as it is. A file without a version is of the first.
package ondisk

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ErrNewer is wrapped by the error for a file that a later release wrote.
var ErrNewer = errors.New("a later release wrote it")

// Check returns nil if text, a JSON object, is of a version up to newest, and an error that
// wraps ErrNewer if it is of a later one. What is no object is of the first version, or
// none that anybody wrote: whoever reads it finds out.
func Check(text []byte, newest int) error {
	var r struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(text, &r) == nil && r.Version > newest {
		return fmt.Errorf("it is of version %d, and this program knows those up to %d: %w; it is left as it is; go on with that release, or with the one between", r.Version, newest, ErrNewer)
	}
	return nil
}
