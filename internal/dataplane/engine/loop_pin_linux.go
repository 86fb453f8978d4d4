package engine

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A pin keeps a busy loop's thread on one processor, where its part of the caches is. Left alone,
// the kernel moves a thread that sleeps and wakes thousands of times a second to wherever it
// was woken from.
//
// A loop that parks often is not kept: a goroutine that has a thread of its own is woken through
// another one, which costs more than is won. And a thread that is kept where others work waits,
// though it could run elsewhere: so the pin is taken out for a while when the thread had to wait
// and processors were idle. One loop has a pin; the zero pin does nothing.
type pin struct {
	own  unix.CPUSet // the loop's processor; none: there is no pin
	all  unix.CPUSet // the process's
	rule pinRule

	// may is asked before the goroutine gets a thread of its own or gives it away, and says whether it
	// has nothing that must stay as it was; nil: it has not.
	may func() bool

	turns, parks uint64   // of the loop, at the last look
	stat         *os.File // what the kernel counts of the thread, while the loop has one of its own
	cpus         *os.File // what it counts of all processors, as long; nil: nothing
	text         []byte   // room for what is read of both
	in           bool
}

// cpuLine is as long as a processor's line in /proc/stat can be: ten numbers of 64 bits.
const cpuLine = 256

// newPin returns the pin for the loop with this index of so many, or one that does nothing
// where there is not one loop to each processor.
func newPin(index, loops int) (p pin) {
	var all unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil || all.Count() != loops || loops < 2 {
		return pin{}
	}
	p.all = all
	last := 0
	for cpu, n := 0, 0; n < loops; cpu++ {
		if all.IsSet(cpu) {
			if n == index {
				p.own.Set(cpu)
			}
			n, last = n+1, cpu
		}
	}
	p.text = make([]byte, (last+2)*cpuLine) // the sum of all comes first
	return p
}

// look puts the pin in, or takes it out, by what became of the loop and its thread since the call
// before. turns and parks are the loop's totals. It is called about once a second, by the loop.
func (p *pin) look(t moment, turns, parks uint64) {
	if p.own.Count() == 0 {
		return
	}
	turned, parked := turns-p.turns, parks-p.parks
	p.turns, p.parks = turns, parks
	// Few turns and no park are those of a loop that has much to do in each.
	if parked*turnsToPark > turned || turned < leastTurns && parked > 0 {
		if p.stat != nil && p.mayChange() {
			p.free()
		}
		return
	}
	if p.stat == nil && !(p.mayChange() && p.hold()) {
		return
	}
	waited, ok := p.waited()
	if !ok {
		return
	}
	in := p.rule.judge(t, waited, p.idle)
	if in == p.in {
		return
	}
	p.in = in
	set := &p.all
	if in {
		set = &p.own
	}
	_ = unix.SchedSetaffinity(0, set) // else it stays as it is, and works as well
}

const (
	// leastTurns is how often a loop that parks at all, and has a thread of its own, turns between
	// two looks, and turnsToPark how often at least for each time that it parks.
	leastTurns  = 200
	turnsToPark = 20
)

func (p *pin) mayChange() bool { return p.may == nil || p.may() }

// hold binds the loop's goroutine to its thread, and reports whether it is.
func (p *pin) hold() bool {
	runtime.LockOSThread()
	f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/schedstat", unix.Gettid()))
	if err != nil {
		runtime.UnlockOSThread()
		p.own = unix.CPUSet{} // a kernel that does not count this
		return false
	}
	p.stat = f
	p.cpus, _ = os.Open("/proc/stat")
	p.rule.seen, p.rule.wary = 0, false // what is known is another thread's
	return true
}

// free lets the goroutine run on any thread, and this thread anywhere.
func (p *pin) free() {
	if p.stat == nil || p.in && unix.SchedSetaffinity(0, &p.all) != nil {
		return // a thread that is bound to a processor is for nobody else
	}
	p.in = false
	p.stat.Close()
	if p.cpus != nil {
		p.cpus.Close()
	}
	p.stat, p.cpus = nil, nil
	runtime.UnlockOSThread()
}

// waited returns for how long in all the thread was ready and had no processor.
func (p *pin) waited() (time.Duration, bool) {
	n, _ := p.stat.ReadAt(p.text, 0)
	ns, err := strconv.ParseInt(string(wordAt(p.text[:n], 1)), 10, 64)
	return time.Duration(ns), err == nil
}

// idle returns for how long in all the process's processors had nothing to do, added up; 0 if
// the kernel does not say.
func (p *pin) idle() time.Duration {
	if p.cpus == nil {
		return 0
	}
	n, _ := p.cpus.ReadAt(p.text, 0)
	return idleIn(p.text[:n], &p.all)
}

// wordAt returns the nth word of a line, from 0; nothing if there are not as many.
func wordAt(line []byte, n int) []byte {
	const blanks = " \n"
	for {
		line = bytes.TrimLeft(line, blanks)
		end := bytes.IndexAny(line, blanks)
		if end < 0 {
			end = len(line)
		}
		if n == 0 || end == 0 {
			return line[:end]
		}
		line, n = line[end:], n-1
	}
}

// userHZ is in what part of a second /proc/stat counts, on every platform that Go has.
const userHZ = 100

// idleIn adds up the idle time of these processors in the text of /proc/stat.
func idleIn(text []byte, of *unix.CPUSet) (sum time.Duration) {
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		name, found := bytes.CutPrefix(line, []byte("cpu"))
		if !found {
			continue
		}
		cpu, err := strconv.Atoi(string(wordAt(name, 0)))
		if err != nil || name[0] == ' ' || !of.IsSet(cpu) {
			continue // the sum of all is called cpu
		}
		ticks, _ := strconv.ParseInt(string(wordAt(name, 4)), 10, 64)
		sum += time.Duration(ticks) * time.Second / userHZ
	}
	return sum
}

// A pinRule decides whether a pin is in.
type pinRule struct {
	seen   moment // the last look
	waited time.Duration
	idle   time.Duration // at the last look, if the thread had waited much then
	wary   bool          // it had
	until  moment        // the pin stays out
}

const (
	// mostWaited is how much of a second a thread may wait for its processor, and mustIdle
	// how much idle time of all processors shows that it need not have.
	mostWaited = 100 * time.Millisecond
	mustIdle   = 200 * time.Millisecond

	// pinOut is how long a pin stays out.
	pinOut = time.Minute
)

// judge returns whether the pin is to be in from t on. waited is the thread's total; idle
// returns that of the processors, and is called only if the thread waits much.
func (r *pinRule) judge(t moment, waited time.Duration, idle func() time.Duration) bool {
	passed := time.Duration(t - r.seen)
	much := r.seen != 0 && (waited-r.waited)*time.Duration(time.Second) > mostWaited*passed
	r.seen, r.waited = t, waited
	was, wary := r.idle, r.wary
	r.wary = much
	if t < r.until {
		return false
	}
	if !much {
		return true
	}
	r.idle = idle()
	if wary && (r.idle-was)*time.Duration(time.Second) > mustIdle*passed {
		r.until, r.wary = t+moment(pinOut), false
		return false
	}
	return true
}
