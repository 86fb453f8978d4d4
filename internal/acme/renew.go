package acme

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// renewAt is when a certificate is renewed: when the CA wants it, else after two thirds of its
// life. The second is spread over a twelfth of the life by name, so that those of one day do
// not all come due together. No CA is believed that wants it when the life is all but over; and
// one that has come a moment ago stays for a while whatever CA and clock say, for if one of the
// two is wrong the next one comes due at once as well. The moment is believed unless it is still to
// come: then the clock of the node that noted it was wrong.
func (m *Manager) renewAt(c certified) time.Time {
	leaf, err := leafOf(c.Chain)
	if err != nil {
		return time.Time{} // of no use: now
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at := leaf.NotBefore.Add(life*2/3 - life/24 + time.Duration(part(c.Name+leaf.SerialNumber.String())*float64(life/12)))
	if !c.Renewal.Selected.IsZero() {
		at = c.Renewal.Selected
		if last := leaf.NotAfter.Add(-life / 12); at.After(last) {
			at = last
		}
	}
	if first := c.Since.Add(min(leastKept, life/12)); at.Before(first) && c.Since.Before(m.now().Add(leastKept)) {
		at = first
	}
	return at
}

// leastKept is for how long a certificate is not renewed, unless an operator wants it.
const leastKept = time.Hour

// part is a number from 0 to 1 that goes with a text.
func part(text string) float64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return float64(h.Sum64()>>11) / (1 << 53)
}

// Of an order that failed, the next try waits: less where the CA said nothing, so that what
// it counts is not touched, and more where it said no. Let's Encrypt bears five refusals of
// one name an hour.
const (
	firstSilence, mostSilence = 10 * time.Second, 10 * time.Minute
	firstRefusal, mostRefusal = time.Minute, 6 * time.Hour
)

// backOff is how long to wait after so many failures in a row, less up to a tenth by name.
func backOff(failures int, answered bool, name string) time.Duration {
	d, most, factor := firstSilence, mostSilence, time.Duration(2)
	if answered {
		d, most, factor = firstRefusal, mostRefusal, 4
	}
	for range failures - 1 {
		if d *= factor; d >= most {
			break
		}
	}
	d = min(d, most)
	return d - time.Duration(part(name)*float64(d/10))
}

// How often the CA is asked for a renewal window, unless it says itself (RFC 9773, 4.3).
const (
	windowEvery = 6 * time.Hour
	windowLeast = time.Minute
	windowMost  = 24 * time.Hour
)

// replaces is what a renewal says of the certificate before (RFC 9773, 5); "" if the CA
// knows no such thing.
func replaces(c certified) string {
	if c.Renewal.End.IsZero() {
		return ""
	}
	leaf, err := leafOf(c.Chain)
	if err != nil {
		return ""
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		return ""
	}
	return id
}

// askWindow asks the CA when a certificate is to be renewed, if it is time to ask.
func (m *Manager) askWindow(ctx context.Context, s Settings, c certified) {
	leaf, err := leafOf(c.Chain)
	if err != nil {
		return
	}
	id := "window " + c.Name
	m.mu.Lock()
	defer m.mu.Unlock()
	due, known := m.asked[leaf.SerialNumber.String()]
	switch now := m.now(); {
	case !known: // it has just come, or the node before has asked
		m.asked[leaf.SerialNumber.String()] = now.Add(windowLeast)
		return
	case now.Before(due), m.running[id] != nil, len(m.running) >= maxWindows:
		return
	}
	life, end := context.WithTimeout(ctx, replyTime)
	m.claim(id, end)
	m.orders.Go(func() { // ends with life
		defer m.giveBack(id)
		client, _ := m.client(s)
		defer client.HTTPClient.CloseIdleConnections()
		info, err := client.GetRenewalInfo(life, leaf)
		next := m.now().Add(windowEvery)
		if info.RetryAfter != nil {
			next = *info.RetryAfter
		}
		if now := m.now(); next.Before(now.Add(windowLeast)) {
			next = now.Add(windowLeast)
		} else if next.After(now.Add(windowMost)) {
			next = now.Add(windowMost)
		}
		if err == nil && info.HasWindow() && !m.useWindow(life, c, info) {
			next = m.now().Add(windowLeast)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asked[leaf.SerialNumber.String()] = next
	})
}

// useWindow keeps what the CA says of a certificate. It does not where an order for the name is
// under way, and reports so.
func (m *Manager) useWindow(ctx context.Context, was certified, info acme.RenewalInfo) bool {
	m.mu.Lock()
	ours := m.claim(was.Name, func() {})
	m.mu.Unlock()
	if !ours {
		return false
	}
	defer m.giveBack(was.Name)
	// By now there may be another one, or an operator wants one.
	c, ok := readBook(m.opt.Vault).certs[was.Name]
	if !ok || c.Chain != was.Chain || c.Renewal.Start.Equal(info.SuggestedWindow.Start) && c.Renewal.End.Equal(info.SuggestedWindow.End) {
		return true
	}
	c.Renewal = renewal{info.SuggestedWindow.Start, info.SuggestedWindow.End, info.SelectedTime}
	if err := m.put(ctx, certPrefix+mark(c.Name), c); err != nil {
		m.opt.Log.Warn("acme", "error", err)
		return true
	}
	m.opt.Log.Info("acme: the CA has another renewal window", "name", c.Name, "from", c.Renewal.Start, "to", c.Renewal.End, "renewed", c.Renewal.Selected, "why", info.ExplanationURL)
	return true
}
