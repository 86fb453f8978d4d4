package accesslog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
)

// A pail keeps what is written to it; it refuses while it is full.
type pail struct {
	mu    sync.Mutex
	full  bool
	lines bytes.Buffer
}

func (p *pail) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full {
		return 0, errors.New("full")
	}
	return p.lines.Write(b)
}

func (p *pail) set(full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full = full
}

func use(t *testing.T, l *Log, c config.Access) {
	t.Helper()
	o, err := l.Open(c, "edge-1")
	if err != nil {
		t.Fatal(err)
	}
	l.Use(o)
}

func say(l *Log, target string) {
	l.Exchange(exchange(target), &Entry{Now: noon, Status: 200})
}

func count(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, newline)
}

func TestAnOutputThatRecoversIsWrittenToAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, said := &pail{full: true}, &pail{}
		l := New(Options{Stdout: out, Logger: slog.New(slog.NewTextHandler(said, nil))})
		use(t, l, config.Access{Sample: 1})
		for range 3 {
			say(l, "/")
			time.Sleep(time.Second)
		}
		if l.Lost.Load() != 3 || l.Failed.Load() != 3 || l.Written.Load() != 0 {
			t.Errorf("%d lines lost in %d writes, %d written, want 3, 3, 0", l.Lost.Load(), l.Failed.Load(), l.Written.Load())
		}
		out.set(false)
		say(l, "/")
		l.Close(t.Context())
		if l.Written.Load() != 1 || bytes.Count(out.lines.Bytes(), newline) != 1 {
			t.Errorf("wrote %q", out.lines.String())
		}
		if n := strings.Count(said.lines.String(), "cannot be written"); n != 1 {
			t.Errorf("said %d times that it fails, want once a minute:\n%s", n, said.lines.String())
		}
		if !strings.Contains(said.lines.String(), "written again") {
			t.Errorf("did not say that it recovered:\n%s", said.lines.String())
		}
	})
}

func TestOnlyAShareOfGoodExchangesIsWritten(t *testing.T) {
	out := &pail{}
	l := New(Options{Stdout: out})
	use(t, l, config.Access{Sample: 0.1, Slow: time.Second})
	for range 100 {
		say(l, "/good")
		l.Exchange(exchange("/bad"), &Entry{Now: noon, Status: 500})
	}
	l.Close(context.Background())
	for path, want := range map[string]int{`"/good"`: 10, `"/bad"`: 100} {
		if n := strings.Count(out.lines.String(), path); n != want {
			t.Errorf("%d lines of %s, want %d", n, path, want)
		}
	}
}

func TestAFileThatWasMovedAwayIsOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "access.log")
	l := New(Options{})
	use(t, l, config.Access{Output: name, Sample: 1})
	say(l, "/1")
	waitFor(t, func() bool { return l.Written.Load() == 1 })
	if err := os.Rename(name, filepath.Join(dir, "old.log")); err != nil {
		t.Fatal(err)
	}
	l.Reopen()
	waitFor(t, func() bool { _, err := os.Stat(name); return err == nil })
	say(l, "/2")
	say(l, "/3")
	l.Close(context.Background())
	if old, now := count(t, filepath.Join(dir, "old.log")), count(t, name); old != 1 || now != 2 {
		t.Errorf("the old file has %d lines, the new one %d, want 1 and 2", old, now)
	}
}

// waitFor waits for what another goroutine does with real files.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestADirectoryThatIsGoneCostsLinesAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "log")
		name := filepath.Join(dir, "access.log")
		os.Mkdir(dir, 0o755)
		l := New(Options{})
		use(t, l, config.Access{Output: name, Sample: 1})
		once := func() {
			say(l, "/")
			time.Sleep(2 * lookEvery)
		}
		once()
		os.RemoveAll(dir)
		once()
		once()
		if l.Written.Load() != 1 || l.Lost.Load() != 2 {
			t.Errorf("%d lines written, %d lost, want 1 and 2", l.Written.Load(), l.Lost.Load())
		}
		os.Mkdir(dir, 0o755)
		once()
		l.Close(t.Context())
		if n := count(t, name); n != 1 {
			t.Errorf("the new file has %d lines, want 1", n)
		}
	})
}

func TestAFullDiskCostsLinesAndNoMore(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	l := New(Options{})
	use(t, l, config.Access{Output: "/dev/full", Sample: 1})
	say(l, "/")
	say(l, "/")
	l.Close(context.Background())
	if l.Lost.Load() != 2 || l.Written.Load() != 0 {
		t.Errorf("%d lines lost, %d written, want 2 and 0", l.Lost.Load(), l.Written.Load())
	}
}

func TestAFullFileIsTurned(t *testing.T) {
	name := filepath.Join(t.TempDir(), "access.log")
	f, err := openFile(name, &config.Rotate{Size: 10, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for _, text := range []string{"one\n", "two\n", "three\n", "much longer than a file may be\n", "five\n"} {
		if lost, err := f.write([]byte(text)); lost != 0 || err != nil {
			t.Fatalf("write(%q) = %d, %v", text, lost, err)
		}
	}
	for file, want := range map[string]string{name: "five\n", name + ".1": "much longer than a file may be\n", name + ".2": "three\n"} {
		if got, err := os.ReadFile(file); string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", filepath.Base(file), got, err, want)
		}
	}
	if _, err := os.Stat(name + ".3"); err == nil {
		t.Error("more files are kept than were asked for")
	}
}

func TestALineBeginsWhereATornOneEnded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "access.log")
	f, err := openFile(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	f.write([]byte("one\ntw"))
	f.torn = true // as after a disk that was full
	f.write([]byte("three\n"))
	if got, _ := os.ReadFile(name); string(got) != "one\ntw\nthree\n" {
		t.Errorf("the file holds %q", got)
	}
}

func TestASyslogGetsEachLineAsAMessage(t *testing.T) { // RFC 5424
	path := filepath.Join(t.TempDir(), "log")
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	for output, socket := range map[string]net.PacketConn{"syslog:" + path: unix, "syslog:" + udp.LocalAddr().String(): udp} {
		defer socket.Close()
		l := New(Options{})
		use(t, l, config.Access{Output: output, Sample: 1, Format: "text"})
		say(l, "/1")
		say(l, "/2")
		l.Close(context.Background())
		for _, want := range []string{"path=/1", "path=/2"} {
			b := make([]byte, 4096)
			socket.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, _, err := socket.ReadFrom(b)
			if err != nil {
				t.Fatalf("%s: %v", output, err)
			}
			head, message, _ := strings.Cut(string(b[:n]), " access - ")
			words := strings.Fields(head)
			if len(words) != 5 || words[0] != "<134>1" || words[2] != "edge-1" || words[3] != "proxyd" {
				t.Errorf("%s: header %q", output, head)
			}
			if _, err := time.Parse(time.RFC3339Nano, words[1]); err != nil {
				t.Errorf("%s: %v", output, err)
			}
			if !strings.Contains(message, want) || strings.Contains(message, "\n") {
				t.Errorf("%s: message %q, want one with %s", output, message, want)
			}
		}
	}
}

func TestASyslogMayComeLaterAndGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s := newSyslog("unixgram", path, "edge-1")
	defer s.close()
	if lost, err := s.write([]byte("a\nb\n")); lost != 2 || err == nil {
		t.Errorf("write = %d, %v while nobody is there, want 2 and an error", lost, err)
	}
	for range 2 { // come, and come again
		socket, err := net.ListenPacket("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		s.refused = time.Time{} // a second later
		if lost, err := s.write([]byte("a\nb\n")); lost != 0 || err != nil {
			t.Errorf("write = %d, %v", lost, err)
		}
		socket.Close()
		os.Remove(path)
	}
}

func TestALineThatIsTooLongForADatagramIsLostAlone(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	s := newSyslog("udp", socket.LocalAddr().String(), "edge-1")
	defer s.close()
	if lost, err := s.write([]byte("a\n" + strings.Repeat("x", maxDatagram) + "\nb\n")); lost != 1 || !errors.Is(err, errTooLong) {
		t.Errorf("write = %d, %v, want 1 and errTooLong", lost, err)
	}
}
