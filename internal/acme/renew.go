package acme

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// renewAt is when a certificate is renewed: when the CA wants it, else after two thirds of its
// life. The second is spread over a twelfth of the life by name, so that those of one day do
// not all come due together.
func (m *Manager) renewAt(c certified) time.Time {
	if !c.Renewal.Selected.IsZero() {
		return c.Renewal.Selected
	}
	leaf, err := leafOf(c.Chain)
	if err != nil {
		return time.Time{} // of no use: now
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life*2/3 - life/24 + time.Duration(part(c.Name+leaf.SerialNumber.String())*float64(life/12)))
}

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
	case !known: // it was asked for with the certificate, or by the node before
		m.asked[leaf.SerialNumber.String()] = now.Add(windowLeast)
		return
	case now.Before(due), m.running[id] != nil, len(m.running) >= maxOrders:
		return
	}
	life, end := context.WithTimeout(ctx, replyTime)
	m.running[id] = end
	m.orders.Go(func() { // ends with life
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
		if err == nil && info.HasWindow() && (!c.Renewal.Start.Equal(info.SuggestedWindow.Start) || !c.Renewal.End.Equal(info.SuggestedWindow.End)) {
			c.Renewal = renewal{info.SuggestedWindow.Start, info.SuggestedWindow.End, info.SelectedTime}
			if err := m.put(life, certPrefix+mark(c.Name), c); err != nil {
				m.opt.Log.Warn("acme", "error", err)
			}
			m.opt.Log.Info("acme: the CA has another renewal window", "name", c.Name, "from", c.Renewal.Start, "to", c.Renewal.End, "renewed", c.Renewal.Selected, "why", info.ExplanationURL)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asked[leaf.SerialNumber.String()] = next
		delete(m.running, id)
		end()
	})
}
