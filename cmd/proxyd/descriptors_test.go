package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/freeport"
)

// 2,000 clients come to a node with 256 descriptors. It turns most of them away, answers its
// operators meanwhile, and serves again when they have gone.
func TestDescriptorsRunOutWithoutHarm(t *testing.T) { // E8
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served") }))
	defer server.Close()
	at := fmt.Sprintf("127.0.0.1:%d", freeport.Take(t, 1))
	p := launch(t, "[listener.http]\naddress = \""+at+"\"\n[pool.app]\nservers = [\""+strings.TrimPrefix(server.URL, "http://")+"\"]\n[[route]]\npool = \"app\"\n")
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: 256}, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // it looks once a second
	ask := func(c net.Conn) (int, error) {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			return 0, err
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, answer.Body)
		if answer.StatusCode == 503 && answer.Header.Get("Retry-After") == "" {
			err = errors.New("503 without Retry-After")
		}
		return answer.StatusCode, err
	}
	var open []net.Conn
	counts := map[int]int{}
	for range 2000 {
		c, err := net.DialTimeout("tcp", at, 10*time.Second)
		if err != nil {
			t.Fatalf("a client cannot even connect: %v", err)
		}
		status, err := ask(c)
		if err != nil {
			status = 0 // reset before it could read its 503
		}
		counts[status]++
		open = append(open, c)
	}
	if counts[200] < 100 || counts[503] < 1500 || counts[0] > 100 {
		t.Errorf("answers by status: %v, want some 200, and 503 for nearly all others", counts)
	}
	if _, err := p.Status(t.Context()); err != nil {
		t.Errorf("operators are not answered: %v", err)
	}
	if n := strings.Count(p.log.String(), "accept failed"); n < 1 || n > 2 {
		t.Errorf("%d lines of the log say so, want one a minute", n)
	}
	for _, c := range open {
		c.Close()
	}
	p.eventually("clients are served again", func() bool {
		c, err := net.Dial("tcp", at)
		if err != nil {
			return false
		}
		defer c.Close()
		status, err := ask(c)
		return status == 200 && err == nil
	})
	pools, err := p.Pools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pool := range pools {
		for _, s := range pool.Servers {
			if s.State != "up" {
				t.Errorf("the server is blamed: %+v", s)
			}
		}
	}
}
