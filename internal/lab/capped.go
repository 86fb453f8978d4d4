package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// capped is a proxyd with a share of the processors of its own.
type capped struct {
	plan   Plan
	dir    string
	at     string   // its listener
	plain  string   // the server of the floods
	server string   // that of all others
	serves *Process // that server
	quota  int      // hundredths of a processor; 0: no bound
	h2c    bool     // it takes HTTP/2 in clear
	more   string   // of its configuration
	p      *Process
	leave  func() // its control group, if it has one
}

// start starts it, with so many descriptors; 0: as many as there are.
func (n *capped) start(files uint64) error {
	conf := filepath.Join(n.dir, "proxyd.toml")
	text := fmt.Sprintf("[node]\nname = \"capped\"\nstate = %q\n[listener.http]\naddress = %q\nh2c = %t\n[admin]\nsocket = %q\nlisten = \"\"\n[log]\naccess = false\n[pool.app]\nservers = [%q]\n[pool.plain]\nservers = [%q]\n[[route]]\nhost = %q\npool = \"plain\"\n[[route]]\npool = \"app\"\n%s",
		n.dir, n.at, n.h2c, filepath.Join(n.dir, "admin.sock"), n.server, n.plain, floodHost, n.more)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	p, _, err := start(command{name: "proxyd", argv: []string{n.plan.Proxyd, "run", "-c", conf}, log: filepath.Join(n.dir, "proxyd.log")})
	if err != nil {
		return err
	}
	n.p = p
	if files > 0 {
		if err := unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}, nil); err != nil {
			return fmt.Errorf("limit descriptors: %w", err)
		}
	} else if n.leave, err = confine(p.PID(), "capped", share{quota: n.quota, weight: mostWeight}); err != nil {
		return err
	}
	for range 100 {
		if c, err := net.Dial("tcp", n.at); err == nil {
			c.Close()
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(n.dir, "proxyd.log"))
	return fmt.Errorf("proxyd does not listen: %s", log)
}

func (n *capped) stop() {
	if n.p != nil {
		n.p.Kill()
	}
	if n.leave != nil {
		n.leave()
		n.leave = nil
	}
}

func (n *capped) alive() error {
	if n.p.Alive() {
		return nil
	}
	log, _ := os.ReadFile(filepath.Join(n.dir, "proxyd.log"))
	return fmt.Errorf("proxyd has ended: %v\n%s", n.p.Err(), log)
}

func (n *capped) rss() int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.p.PID()))
	if fields := strings.Fields(string(text)); len(fields) > 1 {
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		return pages * int64(os.Getpagesize())
	}
	return 0
}

// A share is what a control group has of the machine: a quota in hundredths of a processor,
// if it is not 0, and its weight against others, of whom most have 100.
type share struct {
	quota  int
	weight int
}

const mostWeight = 10000

// confine puts a process into a control group of its own, of either version. leave puts it
// back, if it still runs.
func confine(pid int, name string, s share) (leave func(), err error) {
	for _, v := range []struct {
		root, quota, weight string
		max, times          int
		format              string
	}{
		{"/sys/fs/cgroup", "cpu.max", "cpu.weight", mostWeight, 1, "%d 100000"},
		{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "cpu.shares", 1 << 18, 10, "%d"},
	} {
		dir := filepath.Join(v.root, fmt.Sprintf("proxyd-%s-%d", name, pid))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		err := tell(filepath.Join(dir, v.weight), strconv.Itoa(min(s.weight*v.times, v.max)))
		if err == nil && s.quota > 0 {
			err = tell(filepath.Join(dir, v.quota), fmt.Sprintf(v.format, s.quota*1000))
		}
		if err == nil {
			err = tell(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
		}
		if err == nil {
			return func() {
				_ = tell(filepath.Join(v.root, "cgroup.procs"), strconv.Itoa(pid)) // it may have ended
				syscall.Rmdir(dir)
			}, nil
		}
		syscall.Rmdir(dir)
	}
	return nil, errors.New("this machine lets nobody make a control group for the processor: the drill needs root")
}

// tell writes to a file that the kernel must have made.
func tell(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}
