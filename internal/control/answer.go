package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"proxyd/internal/doctor"
	"proxyd/internal/history"
)

// HistoryQuery says which entries are wanted; zero values leave nothing out.
type HistoryQuery struct {
	Since time.Time `json:"since,omitzero"`
	N     int       `json:"n,omitempty"` // the latest so many
	VIP   string    `json:"vip,omitempty"`
}

// History is what the nodes wrote down, in one order, the oldest first. Keys are stable.
type History struct {
	Entries []history.Entry `json:"entries"`
	Tellers []Teller        `json:"nodes"`  // of whom there are entries, by name
	Errors  uint64          `json:"errors"` // writes to this node's disk that failed
	Lost    uint64          `json:"lost"`   // entries that the disk never got
	Fault   string          `json:"fault,omitempty"`
}

// Teller is one node whose entries are known here.
type Teller struct {
	Node    string    `json:"node"`
	Entries int       `json:"entries"`
	Latest  time.Time `json:"latest"`
}

// WhyQuery names a change; zero values mean the latest.
type WhyQuery struct {
	VIP  string `json:"vip,omitempty"`
	Term uint64 `json:"term,omitempty"`
}

// Doctor is how fit a node and its cluster are. Keys are stable.
type Doctor struct {
	Node     string           `json:"node"`
	Level    doctor.Level     `json:"level"`    // the worst: ok | warn | fail
	Findings []doctor.Finding `json:"findings"` // the worst first
}

// SimulateQuery is a fault that is only played.
type SimulateQuery struct {
	Fault string `json:"fault"` // kill | cut | freeze | drain
	Node  string `json:"node"`
}

// Simulation is what would come of a fault. Keys are stable.
type Simulation struct {
	Fault  string      `json:"fault"`
	Node   string      `json:"node"`
	VIPs   []Simulated `json:"vips"`
	Unheld []string    `json:"unheld"` // VIPs that nobody would hold
}

// Simulated is what would become of one VIP.
type Simulated struct {
	VIP      string          `json:"vip"`
	From     *string         `json:"from"`      // null: nobody holds it now
	To       *string         `json:"to"`        // null: nobody would
	MS       float64         `json:"ms"`        // until To holds; 0 if it never moves
	UnheldMS float64         `json:"unheld_ms"` // of the time that was played, without a holder
	Steps    []SimulatedStep `json:"steps"`
}

// SimulatedStep is one thing that would happen.
type SimulatedStep struct {
	MS   float64 `json:"ms"` // after the fault
	Node string  `json:"node"`
	Text string  `json:"text"`
}

// stream makes a handler that answers with a line of JSON for each thing that is told,
// until the caller goes away or the node ends.
func stream[T any](log *slog.Logger, follow func(context.Context, func(T) error) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w)
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
		_ = flush.Flush() // who asks knows at once that it is followed
		e := json.NewEncoder(w)
		err := follow(r.Context(), func(v T) error {
			// A reader that stopped reading must not keep this for ever.
			_ = flush.SetWriteDeadline(time.Now().Add(pageTime))
			if err := e.Encode(v); err != nil {
				return err
			}
			return flush.Flush()
		})
		if err != nil && r.Context().Err() == nil {
			log.Warn("admin stream", "error", err)
		}
	}
}

// History implements Operator, as do the methods below.
func (c *Client) History(ctx context.Context, q HistoryQuery) (*History, error) {
	return call[*History](ctx, c, "POST", "/v1/history", q)
}

func (c *Client) Why(ctx context.Context, q WhyQuery) (*history.Story, error) {
	return call[*history.Story](ctx, c, "POST", "/v1/why", q)
}

func (c *Client) Doctor(ctx context.Context) (*Doctor, error) {
	return call[*Doctor](ctx, c, "POST", "/v1/doctor", nil)
}

func (c *Client) Simulate(ctx context.Context, q SimulateQuery) (*Simulation, error) {
	return call[*Simulation](ctx, c, "POST", "/v1/simulate", q)
}

func (c *Client) Watch(ctx context.Context, tell func(history.Entry) error) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://localhost/v1/watch", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("proxyd at %s answered %s to /v1/watch", c.socket, resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxBody)
	for lines.Scan() {
		var e history.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("answer of %s to /v1/watch: %w", c.socket, err)
		}
		if err := tell(e); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return &Error{fmt.Sprintf("proxyd at %s ended: %v", c.socket, errors.Join(lines.Err(), errors.New("the stream is closed"))), ErrAbsent}
}
