package engine

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAPinIsTakenOutWhereOthersWorkAndProcessorsAreIdle(t *testing.T) {
	const second = moment(time.Second)
	for _, c := range []struct {
		name         string
		waits, idles []time.Duration // in each second
		in           []bool
	}{
		{"nobody waits", []time.Duration{0, 0, 0}, []time.Duration{time.Second, time.Second, time.Second}, []bool{true, true, true}},
		{"all are busy", []time.Duration{time.Second / 2, time.Second / 2, time.Second / 2}, []time.Duration{0, 0, 0}, []bool{true, true, true}},
		{"it waits once", []time.Duration{0, time.Second / 2, 0, 0}, []time.Duration{time.Second, time.Second, time.Second, time.Second}, []bool{true, true, true, true}},
		{"another is idle", []time.Duration{0, time.Second / 2, time.Second / 2, 0}, []time.Duration{time.Second, time.Second, time.Second, time.Second}, []bool{true, true, false, false}},
	} {
		var r pinRule
		var waited, idle time.Duration
		at := 5 * second
		r.judge(at, 0, func() time.Duration { return 0 })
		for i := range c.in {
			at += second
			waited += c.waits[i]
			idle += c.idles[i]
			if in := r.judge(at, waited, func() time.Duration { return idle }); in != c.in[i] {
				t.Errorf("%s: after %d s the pin is in: %v", c.name, i+1, in)
			}
		}
		if in := r.judge(at+moment(pinOut), waited, func() time.Duration { return idle }); !in {
			t.Errorf("%s: it is never put in again", c.name)
		}
	}
}

func TestIdleTimeIsThatOfTheProcessorsOneMayUse(t *testing.T) {
	text := []byte("cpu  1 2 3 1000 5 6\ncpu0 1 2 3 100 5\ncpu1 1 2 3 200 5\ncpu12 1 2 3 700 5\nintr 7 7 7 7 7 7\nctxt 12\n")
	var of unix.CPUSet
	of.Set(1)
	of.Set(12)
	if d := idleIn(text, &of); d != 9*time.Second {
		t.Errorf("idleIn = %v, want 9 s", d)
	}
}

func TestEachLoopHasItsProcessor(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	n := all.Count()
	if n < 2 {
		if p := newPin(0, 1); p.own.Count() != 0 {
			t.Error("there is a pin, though there is nowhere else to be")
		}
		return
	}
	var seen unix.CPUSet
	for i := range n {
		own := make(chan unix.CPUSet)
		go func() { // its thread ends with it
			p := newPin(i, n)
			defer p.free()
			p.look(moment(time.Second), leastTurns, 0)
			var now unix.CPUSet
			_ = unix.SchedGetaffinity(0, &now)
			own <- now
		}()
		got := <-own
		if got.Count() != 1 {
			t.Fatalf("loop %d may be on %d processors", i, got.Count())
		}
		for cpu := range 1024 {
			if got.IsSet(cpu) {
				if seen.IsSet(cpu) || !all.IsSet(cpu) {
					t.Errorf("loop %d is on processor %d", i, cpu)
				}
				seen.Set(cpu)
			}
		}
	}
	if p := newPin(0, n+1); p.own.Count() != 0 {
		t.Error("there is a pin with more loops than processors")
	}
}

// A loop that parks often, or has little to do, is for any thread and any processor.
func TestALoopThatParksIsLetGo(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	if all.Count() < 2 {
		t.Skip("one processor: there is no pin")
	}
	may := make(chan []int)
	go func() {
		p := newPin(0, all.Count())
		var turns, parks uint64
		var seen []int
		for i, more := range [][2]uint64{{leastTurns - 1, 1}, {leastTurns, leastTurns / turnsToPark}, {leastTurns, leastTurns / 2}, {leastTurns, 0}, {1, 1}, {10, 0}} {
			turns, parks = turns+more[0], parks+more[1]
			p.look(moment(i+1)*moment(time.Second), turns, parks)
			var now unix.CPUSet
			_ = unix.SchedGetaffinity(0, &now)
			seen = append(seen, now.Count())
		}
		may <- seen
	}()
	n := all.Count()
	if got, want := <-may, []int{n, 1, n, 1, n, 1}; !slices.Equal(got, want) {
		t.Errorf("it may be on %d processors, want %d", got, want)
	}
}

func TestOnlyLoopsAreKeptOnAProcessor(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	e := NewLoop(Config{Loops: all.Count()})
	defer e.Shutdown(t.Context())
	may := make(chan int)
	for _, l := range e.loops {
		l.post(func() {
			l.pin.look(now(), l.turns+leastTurns, l.parks)
			var now unix.CPUSet
			_ = unix.SchedGetaffinity(0, &now)
			go func() { // on another thread, which may have been made for it
				runtime.LockOSThread()
				var beside unix.CPUSet
				_ = unix.SchedGetaffinity(0, &beside)
				may <- beside.Count()
			}()
			may <- -now.Count()
		})
	}
	for range 2 * len(e.loops) {
		if n := <-may; n != -1 && n != all.Count() {
			t.Errorf("a thread may be on %d of %d processors (below 0: a loop's)", n, all.Count())
		}
	}
}

// Every loop looks once a second.
func TestALookAtAPinAllocatesNothing(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	if all.Count() < 2 {
		t.Skip("there is no pin on one processor")
	}
	allocations := make(chan float64)
	go func() { // its thread ends with it
		p := newPin(0, all.Count())
		defer p.free()
		p.look(moment(time.Second), leastTurns, 0)
		if waited, ok := p.waited(); !ok || waited < 0 || p.idle() <= 0 {
			t.Errorf("the thread has waited %v, %t; the processors were idle %v", waited, ok, p.idle())
		}
		at, turns := moment(time.Second), uint64(leastTurns)
		allocations <- testing.AllocsPerRun(100, func() {
			at, turns = at+moment(time.Second), turns+leastTurns
			p.look(at, turns, 0)
			p.idle()
		})
	}()
	if n := <-allocations; n > 0 {
		t.Errorf("%v allocations a look, want 0", n)
	}
}

// A heldConn sends nothing more once it has sent so often, until on is closed.
type heldConn struct {
	net.Conn
	sends int
	stuck chan<- struct{}
	on    <-chan struct{}
}

func (c *heldConn) Write(b []byte) (int, error) {
	if c.sends--; c.sends < 0 {
		close(c.stuck)
		<-c.on
		c.sends = 1 << 20
	}
	return c.Conn.Write(b)
}

// A coroutine goes on only on the thread on which it was made, if that was the loop's own, and on
// none that is if it was not. So a loop gets no thread, and gives none away, within a handshake.
func TestALoopKeepsItsThreadWithinAHandshake(t *testing.T) {
	s, _, _, _ := asideStage(t, nil)
	l := s.engine.(*Loop).loops[0]
	do := func(f func()) {
		t.Helper()
		done := make(chan struct{})
		l.post(func() { f(); close(done) })
		<-done
	}
	do(func() {
		if err := unix.SchedGetaffinity(0, &l.pin.all); err != nil {
			t.Error(err)
		}
		l.pin.own = l.pin.all
		l.swept = now() + moment(time.Hour) // nobody else looks
	})
	look := func(busy bool) (own bool) {
		turns, parks := uint64(leastTurns), uint64(0)
		if !busy {
			turns, parks = 1, 1
		}
		do(func() {
			l.pin.look(now(), l.pin.turns+turns, l.pin.parks+parks)
			own = l.pin.stat != nil
		})
		return own
	}
	fine := func(when string) {
		t.Helper()
		if got, err := s.fetch(&tls.Config{ServerName: "quick"}); !strings.Contains(got, "made here") || err != nil {
			t.Errorf("%s: %q, %v", when, got, err)
		}
	}
	fine("without a thread of its own")
	for _, busy := range []bool{true, false} {
		stuck, on := make(chan struct{}), make(chan struct{})
		tcp, err := net.Dial("tcp", s.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		tcp.SetDeadline(time.Now().Add(patience))
		client := tls.Client(&heldConn{tcp, 1, stuck, on}, &tls.Config{InsecureSkipVerify: true, ServerName: "quick"})
		shaken := make(chan error)
		go func() { shaken <- client.Handshake() }()
		<-stuck // the server has answered, and waits
		if own := look(busy); own == busy {
			t.Errorf("within a handshake the loop has its own thread: %v", own)
		}
		close(on)
		if err := <-shaken; err != nil {
			t.Error(err)
		}
		if _, err := io.WriteString(client, askAnswer); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(client); !strings.Contains(string(got), "made here") || err != nil {
			t.Errorf("then it gets %q, %v", got, err)
		}
		if own := look(busy); own != busy {
			t.Errorf("after it the loop has its own thread: %v", own)
		}
		fine("after a change")
	}
}
