package main

import (
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/ha"
	"proxyd/internal/notify"
)

// receivers are whom c wants told.
func receivers(c *config.Config) notify.Where {
	return notify.Where{Command: c.Cluster.Notify.Command, Webhook: c.Cluster.Notify.Webhook}
}

// tellChange tells of a VIP that this node became the holder or the standby of. It does
// not wait.
func (k *cluster) tellChange(n *notify.Notifier, c ha.Change) {
	e := notify.Event{VIP: c.VIP, State: notify.Standby, Reason: string(c.Reason), Text: c.Text, From: c.From, To: c.To, Term: c.Term, Time: wall(c.At)}
	self := k.now().config.Node.Name
	switch {
	case c.To == self:
		e.State = notify.Holder
	case c.From != self:
		return // between others
	}
	k.tell(n, e)
}

// tellFact tells of VIPs that this node let go, or could not hold.
func (k *cluster) tellFact(n *notify.Notifier, f ha.Fact) {
	e := notify.Event{Reason: f.Text, From: k.now().config.Node.Name, Term: f.Term, Time: wall(f.At)}
	switch f.Kind {
	case ha.FactYield:
		e.State, e.To = notify.Standby, f.Peer
	case ha.FactRelease:
		e.State = notify.Standby
	case ha.FactFault:
		e.State, e.Reason, e.Text = notify.Fault, "fault", f.Text
	default:
		return
	}
	for _, v := range vipsOf(k.now().config) {
		if leader(k.now().config, v) == f.VIP {
			e.VIP = v.Name
			k.tell(n, e)
		}
	}
}

func (k *cluster) tell(n *notify.Notifier, e notify.Event) {
	e.Type, e.Node, e.Cluster, e.Time = "vip", k.now().config.Node.Name, k.now().config.Cluster.Name, e.Time.UTC()
	if v := k.now().config.VIP[e.VIP]; v != nil {
		e.Address = v.Address.Addr().String()
	}
	e.Reason = strings.ToValidUTF8(e.Reason, "")
	n.Tell(e)
}

// leader returns the name of the VIP that decides for v: itself, or the one that it follows.
func leader(c *config.Config, v *config.VIP) string {
	for range c.VIP {
		next := c.VIP[v.Follow]
		if next == nil {
			break
		}
		v = next
	}
	return v.Name
}
