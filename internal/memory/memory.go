// Package memory writes down what a part of this process knows, and puts it back into the
// same part of the process that takes its place.
//
// Each part lists what it knows, once for both directions: names, which are for ever, and
// where the values are. Names that one side does not have are passed over, so two releases
// understand each other, whichever is the newer one. A test of each part holds that nothing
// is left out by mistake (memorytest).
package memory

import (
	"encoding/json"
	"fmt"
)

// Fields are values by name: pointers to what encoding/json writes and reads, or Fields.
type Fields map[string]any

// record is Fields on their way.
type record struct {
	Version int             `json:"version"`
	Fields  json.RawMessage `json:"fields"`
}

// Write writes fields down, in a version of their own.
func Write(version int, f Fields) (json.RawMessage, error) {
	text, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	return json.Marshal(record{version, text})
}

// Read puts what Write wrote where the fields are. It is refused if it is of a version after
// newest: that is raised where a release before must not go on with what it would understand.
// On error the fields are in part read and of no use.
func Read(text json.RawMessage, newest int, f Fields) error {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	if r.Version < 1 || r.Version > newest {
		return fmt.Errorf("memory of version %d, and this program knows those up to %d", r.Version, newest)
	}
	return f.read(r.Fields)
}

func (f Fields) read(text json.RawMessage) error {
	var known map[string]json.RawMessage
	if err := json.Unmarshal(text, &known); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	for name, to := range f {
		value, there := known[name]
		if !there {
			continue
		}
		var err error
		if in, ok := to.(Fields); ok {
			err = in.read(value)
		} else {
			err = json.Unmarshal(value, to)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
