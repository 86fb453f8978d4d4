package election

import (
	"encoding/json"

	"proxyd/internal/memory"
)

// Memory returns what the machine knows and has promised, for a machine of the same voter in
// another process. This one must not Step again then, or one voter has two minds.
func (m *Machine) Memory() (json.RawMessage, error) {
	known, err := memory.Of(m, "Config", "acts")
	if err != nil {
		return nil, err
	}
	return json.Marshal(remembered{known, m.Voters})
}

// Recall makes m go on where the machine stopped whose Memory it is, of the same voters. It
// does without the quiet start, since nothing that was promised is forgotten.
func (m *Machine) Recall(text json.RawMessage) error {
	var r remembered
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	if err := memory.Recall(m, r.Known, "Config", "acts"); err != nil {
		return err
	}
	m.reorder(r.Voters)
	return nil
}

// remembered is a machine with the order of the candidates that it had.
type remembered struct {
	Known  json.RawMessage `json:"known"`
	Voters []ID            `json:"voters"`
}
