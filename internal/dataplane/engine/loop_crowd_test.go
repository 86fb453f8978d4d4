package engine

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

// A guest is a client that is one of many: what it says in each round, and how it goes.
type guest struct {
	pieces [][]byte
	leaves string // "": it reads to the end; "stops": closes its half within a head; "closes", "resets"
}

// newGuest draws one. Bytes are split wherever chance has it: within heads, within bodies, and
// several requests may come in one piece.
func newGuest(r *rand.Rand, n int) guest {
	var all []byte
	requests := 1 + r.IntN(4)
	for i := range requests {
		path := fmt.Sprintf("/%d/%d", n, i)
		switch r.IntN(6) {
		case 0:
			path = "/answer"
		case 1:
			path = "/heavy" + path // the loop hands it over
		}
		closes := ""
		if i == requests-1 {
			closes = "Connection: close\r\n"
		}
		switch r.IntN(3) {
		case 0:
			body := make([]byte, r.IntN(20_000))
			fill(body, n)
			all = fmt.Appendf(all, "POST %s HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n%s", path, closes, len(body), body)
		default:
			all = fmt.Appendf(all, "GET %s HTTP/1.1\r\nHost: h\r\n%sX-Long: %s\r\n\r\n", path, closes, strings.Repeat("l", r.IntN(2000)))
		}
	}
	g := guest{leaves: []string{"", "", "", "", "", "", "stops", "closes", "resets"}[r.IntN(9)]}
	switch g.leaves {
	case "stops":
		all = []byte("GET /never HTTP/1.1\r\nHo")
	case "closes", "resets":
		all = all[:1+r.IntN(len(all))]
	}
	cuts := []int{0, len(all)}
	for range r.IntN(4) {
		cuts = append(cuts, r.IntN(len(all)))
	}
	slices.Sort(cuts)
	for i := range len(cuts) - 1 {
		g.pieces = append(g.pieces, all[cuts[i]:cuts[i+1]])
	}
	return g
}

// echoing answers each request with what came of it.
func echoing(s *stage) {
	eachRequest(s, func(conn net.Conn, q *http.Request) bool {
		h := crc32.NewIEEE()
		n, err := io.Copy(h, q.Body)
		if err != nil {
			return false
		}
		said := fmt.Sprintf("%s %s %d bytes %x, %d of X-Long\n", q.Method, q.URL.Path, n, h.Sum32(), len(q.Header.Get("X-Long")))
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: %d\r\n\r\n%s", len(said), said)
		return true
	})
}

// crowdPatience is how long all of a crowd may take, on a machine that is busy.
const crowdPatience = 2 * time.Minute

// party has all guests come at once and returns what each that stays to the end got. Between
// two rounds loops see to what came; in a round it comes while they do not look.
func party(t *testing.T, newEngine func(Config) Engine, guests []guest) [][]byte {
	s := newStage(t, newEngine, func(s *stage, _ *Config) {
		s.waited = true
		s.listener.Limits.HeaderTime, s.listener.Limits.Idle = crowdPatience, crowdPatience
		s.route.Timeout = dataplane.Timeouts{Connect: crowdPatience, Send: crowdPatience, Read: crowdPatience, Idle: crowdPatience}
	})
	go echoing(s) // ends with the stage
	over := make(chan bool)
	t.Cleanup(func() { close(over) })
	go func() { // ends with the test; what the handler is told is not compared
		for {
			select {
			case <-s.events:
			case <-over:
				return
			}
		}
	}()
	release := func() func() { return func() {} }
	if _, ok := s.engine.(*Loop); ok {
		release = s.hold
	}
	conns := make([]*net.TCPConn, len(guests))
	got := make([][]byte, len(guests))
	var reading sync.WaitGroup
	for round, some := 0, true; some; round++ {
		some = false
		end := release()
		for i, g := range guests {
			if round == 0 {
				c, err := net.Dial("tcp", s.socket.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(crowdPatience))
				conns[i] = c.(*net.TCPConn)
			}
			if round >= len(g.pieces) {
				continue
			}
			some = true
			conns[i].Write(g.pieces[round])
			if round < len(g.pieces)-1 {
				continue
			}
			switch g.leaves {
			case "resets":
				conns[i].SetLinger(0)
				fallthrough
			case "closes":
				conns[i].Close()
				continue
			case "stops":
				conns[i].CloseWrite()
			}
			reading.Go(func() {
				defer conns[i].Close()
				var err error
				if got[i], err = io.ReadAll(conns[i]); err != nil {
					t.Errorf("guest %d: %v", i, err)
				}
			})
		}
		end()
	}
	reading.Wait()
	return got
}

// Many clients wait in one queue, with requests in pieces, several in one piece, bodies, and
// some that leave before their turn: each gets, byte for byte, what the goroutine engine says.
func TestACrowdInTurnsGetsTheSameAnswers(t *testing.T) {
	seeds := 3
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(uint64(seed), 44))
		var guests []guest
		for n := range 4 * pacedBatch {
			guests = append(guests, newGuest(r, n))
		}
		want := party(t, func(c Config) Engine { return New(c) }, guests)
		for name, quota := range map[string]time.Duration{"in turns": time.Second, "with rests": 10 * time.Millisecond} {
			t.Run(fmt.Sprint(seed, " ", name), func(t *testing.T) {
				var e *Loop
				got := party(t, func(c Config) Engine { e = newPaced(c, quota); return e }, guests)
				for i := range guests {
					if !bytes.Equal(want[i], got[i]) {
						t.Errorf("guest %d, that said %.100q, got\n%.400q\nwant\n%.400q", i, guests[i].pieces, got[i], want[i])
					}
				}
				if name == "with rests" && e.Counts().Rests == 0 {
					t.Error("it never rested")
				}
			})
		}
	}
}
