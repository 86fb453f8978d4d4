package ha

import (
	"proxyd/internal/memory"
)

// What a node knows, part by part, for the process that takes this one's place: names that
// are for ever, and where the values are. What is not here belongs to a process, or is worked
// out anew; a test has the list.

func (n *Node) fields() memory.Fields {
	return memory.Fields{
		"born": &n.born, "knows": &n.knows,
		"state": &n.state, "reason": &n.reason, "ill": &n.ill,
		"wish": memory.Fields{"withheld": &n.wish.withheld, "last": &n.wish.last, "paused": &n.wish.paused,
			"leaving": &n.wish.leaving, "ill": &n.wish.ill, "why": &n.wish.why},
		"strayed": &n.strayed, "left": &n.left, "seq": &n.seq, "news": &n.news, "replace": &n.replace,
		"flaps": n.flaps.fields(), "asleep": &n.asleep, "turned": &n.turned, "listed": &n.listed,
		"changes": &n.history.list, "trail": &n.trail, "stats": &n.stats, "records": &n.records,
	}
}

func (e *elector) fields() memory.Fields {
	return memory.Fields{
		"order": &e.order,
		"held":  &e.held, "since": &e.since, "until": &e.until, "term": &e.term, "reason": &e.reason, "from": &e.from, "text": &e.text,
		"drained": &e.drained, "holder": &e.holder, "heard": &e.heard, "note": &e.note, "note_at": &e.noteAt,
		"ill": &e.ill, "barred": &e.barred, "paused": &e.paused, "ceding": &e.ceding, "deaf": &e.deaf,
		"broken": &e.broken, "retry": &e.retry, "fault": &e.fault, "warned": &e.warned, "polled": &e.polled, "changes": &e.changes,
		"role": &e.role, "permitted": &e.permitted,
		"unheld": memory.Fields{"total": &e.unheld.total, "since": &e.unheld.since},
	}
}

func (p *peer) fields() memory.Fields {
	return memory.Fields{
		"heard": &p.heard, "alive": &p.alive, "why": &p.why, "hello": &p.hello, "tenures": &p.tenures, "seats": &p.seats,
		"longest": memory.Fields{"hours": &p.longest.hours, "hour": &p.longest.hour},
		"path":    p.path.fields(),
		"suspect": &p.suspect, "miss_at": &p.missAt, "miss": &p.miss, "gaps": &p.gaps,
		"foreign": &p.foreign, "alien": &p.alien, "newest": &p.newest, "listed": &p.listed,
		"asked": &p.asked, "beaten": &p.beaten, "beat_at": &p.beatAt, "requests": &p.requests, "turn": &p.turn,
		"flaps": p.flaps.fields(),
	}
}

func (w *path) fields() memory.Fields {
	return memory.Fields{
		"beat": &w.beat, "got": &w.got, "echo": &w.echo, "echo_at": &w.echoAt, "rtt": &w.rtt, "rtt_at": &w.rttAt, "skew": &w.skew,
		"in": w.in.fields(), "out": w.out.fields(),
	}
}

func (l *losses) fields() memory.Fields {
	return memory.Fields{
		"sent": &l.sent, "got": &l.got, "turned": &l.turned, "started": &l.everStarted,
		"from": l.from[0].fields(), "before": l.from[1].fields(),
	}
}

func (m *mark) fields() memory.Fields { return memory.Fields{"sent": &m.sent, "got": &m.got} }

func (f *flaps) fields() memory.Fields {
	return memory.Fields{"sum": &f.sum, "at": &f.at, "damped": &f.damped}
}
