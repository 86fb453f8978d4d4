package engine

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// queueRig is a loop with a client of each phase, and no sockets.
type queueRig struct {
	*loop
	idle, busy *loopClient
}

func newQueueRig() queueRig {
	l := &loop{engine: &Loop{}}
	rig := queueRig{l, &loopClient{phase: phaseIdle, served: true}, &loopClient{phase: phaseAwait}}
	for i, c := range []*loopClient{rig.idle, rig.busy} {
		c.loopWire.client = c
		l.enlist(&c.loopWire, int32(i+1))
	}
	l.queue.turned = moment(time.Hour)
	return rig
}

// turn has these clients have something to say, and returns whose turn it is.
func (r queueRig) turn(at moment, all ...*loopClient) (turn []*loopClient) {
	for i, c := range all {
		r.events[i] = unix.EpollEvent{Events: unix.EPOLLIN, Fd: c.fd, Pad: int32(c.gen)}
	}
	for _, ev := range r.events[:r.line(len(all), at)] {
		turn = append(turn, r.table[ev.Fd].client)
	}
	return turn
}

func TestWhatIsUnderWayComesBeforeWhatBegins(t *testing.T) {
	r := newQueueRig()
	if turn := r.turn(moment(time.Hour), r.idle, r.busy); !slices.Equal(turn, []*loopClient{r.busy, r.idle}) {
		t.Error("who begins an exchange was seen to first")
	}
}

func TestWhoWaitsIsSeenToInOrderAndItIsKnownForHowLong(t *testing.T) {
	r := newQueueRig()
	var others []*loopClient
	for i := range 3 * pacedBatch {
		c := &loopClient{phase: phaseIdle, served: true}
		c.loopWire.client = c
		r.enlist(&c.loopWire, int32(10+i))
		others = append(others, c)
	}
	at := moment(time.Hour)
	got := r.turn(at, others...)
	if len(got) != pacedBatch || !r.queue.some() {
		t.Fatalf("%d are seen to in a turn", len(got))
	}
	r.remove(&others[pacedBatch].loopWire) // it is gone before its turn
	for at < moment(time.Hour+100*time.Millisecond) && r.queue.some() {
		at += moment(time.Millisecond)
		got = append(got, r.turn(at)...)
	}
	if !slices.Equal(got, slices.Delete(slices.Clone(others), pacedBatch, pacedBatch+1)) {
		t.Error("they were not seen to in order")
	}
	if d := spanOf(r.queue.clock - others[2*pacedBatch+1].heard); d != 2*time.Millisecond {
		t.Errorf("one of the third turn has waited %v, want 2 ms", d)
	}
	if r.queue.some() || len(r.queue.all) != 0 {
		t.Error("the queue is not empty")
	}
}

func TestATurnBringsNewExchangesHoweverMuchIsUnderWay(t *testing.T) {
	r := newQueueRig()
	all := []*loopClient{r.idle}
	for range 2 * pacedBatch {
		all = append(all, r.busy)
	}
	if turn := r.turn(moment(time.Hour), all...); turn[len(turn)-1] != r.idle {
		t.Error("who begins an exchange waits until nothing is under way")
	}
}

// A client that says what it has to say in pieces is in the queue once, since the first. Else a
// batch would read for it twice, and what was read first would be lost.
func TestAClientIsInTheQueueOnce(t *testing.T) {
	r := newQueueRig()
	var crowd []*loopClient
	for i := range 2 * pacedBatch {
		c := &loopClient{phase: phaseIdle, served: true}
		c.loopWire.client = c
		r.enlist(&c.loopWire, int32(10+i))
		crowd = append(crowd, c)
	}
	at := moment(time.Hour)
	got := r.turn(at, append(crowd, r.idle)...)
	since := r.queue.clock
	at += moment(time.Millisecond)
	got = append(got, r.turn(at, r.idle, r.idle)...)
	at += moment(time.Millisecond)
	r.events[0] = unix.EpollEvent{Events: unix.EPOLLRDHUP, Fd: r.idle.fd, Pad: int32(r.idle.gen)}
	n := r.line(1, at)
	if len(got) != len(crowd) || n != 1 || r.table[r.events[0].Fd].client != r.idle || r.queue.some() {
		t.Fatalf("%d were seen to before it, want %d; then %d", len(got), len(crowd), n)
	}
	if what := r.events[0].Events; what != unix.EPOLLIN|unix.EPOLLRDHUP || r.idle.heard != since {
		t.Errorf("what happened to it is %#x, since %v, want it all since %v", what, r.idle.heard, since)
	}
	if turn := r.turn(at, r.idle); !slices.Equal(turn, []*loopClient{r.idle}) {
		t.Error("it does not come into the queue again")
	}
}

func TestWhatOthersDoToTheLoopIsNoWait(t *testing.T) {
	r := newQueueRig()
	at := moment(time.Hour)
	r.turn(at)
	before := r.queue.clock
	r.queue.rested = moment(mostRest)
	at += moment(time.Minute) // the process was stopped
	r.turn(at)
	if d := spanOf(r.queue.clock - before); d != mostRest+longTurn {
		t.Errorf("a turn of a minute counts as %v", d)
	}
}
