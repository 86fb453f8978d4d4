package upstream

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
)

// fullPool makes a pool of servers with max_conns of 1 and a queue.
func fullPool(t testing.TB, balance string, most, size int, wait time.Duration, servers ...string) *Pool {
	t.Helper()
	c := confOf(balance, servers...)
	c.MaxConns = most
	if size > 0 {
		c.Queue = &config.Queue{Size: size, Wait: wait}
	}
	p, err := New(c, nil, Place{Key: []byte("key")})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMaxConnsWithoutAQueue(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn", "ewma", "random", "hash", "first"} {
		p := fullPool(t, balance, 2, 0, 0, "a", "b", "c/backup")
		for i := range 4 {
			if s := pick(p, at(0), client); s == nil || short(s) == "c" {
				t.Fatalf("%s: exchange %d on %s", balance, i+1, short(s))
			}
		}
		_, err := p.Pick(Ask{Now: at(0)})
		if err != ErrFull {
			t.Errorf("%s: a fifth of four places: %v, want ErrFull; a backup is for servers that are down", balance, err)
		}
		if _, _, err := p.Wait(Ask{Now: at(0)}, nil); err != ErrFull {
			t.Errorf("%s: Wait without a queue: %v", balance, err)
		}
		p.Release(p.servers[1])
		if s := pick(p, at(0), client); s != p.servers[1] {
			t.Errorf("%s: the free place was not found", balance)
		}
	}
}

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fullPool(t, "round_robin", 1, 3, 2*time.Second, "a")
		s := pick(p, time.Now(), client)
		var order []int
		var places []*Waiter
		for i := range 3 {
			_, w, err := p.Wait(Ask{Now: time.Now()}, func() { order = append(order, i) })
			if err != nil {
				t.Fatal(err)
			}
			places = append(places, w)
		}
		if _, _, err := p.Wait(Ask{Now: time.Now()}, nil); err != ErrFull {
			t.Errorf("a fourth in a queue of 3: %v", err)
		}
		if _, err := p.Pick(Ask{Now: time.Now()}); err != ErrFull {
			t.Errorf("Pick beside the queue: %v", err)
		}
		places[0].Leave() // its client has gone
		p.Release(s)
		if got, err := places[1].Result(); err != nil || got != s {
			t.Fatalf("the second has %v, %v after the first has left", got, err)
		}
		if _, err := places[2].Result(); err != ErrWaiting {
			t.Errorf("the third: %v", err)
		}
		if p.QueueLength() != 1 || s.Active.Load() != 1 {
			t.Errorf("%d wait, %d at the server; want 1 and 1", p.QueueLength(), s.Active.Load())
		}
		places[1].Leave() // granted, and its client has gone: it gives the server back
		if got, err := places[2].Result(); err != nil || got != s {
			t.Errorf("the third has %v, %v after the second has left", got, err)
		}
		if len(order) != 2 || order[0] != 1 || order[1] != 2 {
			t.Errorf("resumed %v, want 1 and 2", order)
		}
	})
}

func TestQueueHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fullPool(t, "round_robin", 1, 3, 2*time.Second, "a")
		s := pick(p, time.Now(), client)
		resumed := 0
		_, w, err := p.Wait(Ask{Now: time.Now()}, func() { resumed++ })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1999 * time.Millisecond)
		if _, err := w.Result(); err != ErrWaiting {
			t.Errorf("before its time: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if _, err := w.Result(); err != ErrLate || resumed != 1 {
			t.Errorf("after its time: %v, resumed %d times", err, resumed)
		}
		p.Release(s)
		if p.QueueLength() != 0 || s.Active.Load() != 0 {
			t.Errorf("%d wait, %d at the server", p.QueueLength(), s.Active.Load())
		}
	})
}

func TestQueueIsServedWhenAServerComesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fullPool(t, "round_robin", 1, 3, 2*time.Second, "a", "b")
		p.servers[1].Steer(Disable)
		pick(p, time.Now(), client)
		_, w, err := p.Wait(Ask{Now: time.Now()}, func() {})
		if err != nil {
			t.Fatal(err)
		}
		p.servers[1].Steer(Serve)
		time.Sleep(2 * lookEvery)
		if s, err := w.Result(); err != nil || short(s) != "b" {
			t.Errorf("Result = %v, %v; want b", s, err)
		}
	})
}

func TestMaxConnsIsExactUnderLoad(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn", "ewma", "random", "hash", "first"} {
		const most = 3
		p := fullPool(t, balance, most, 1000, time.Minute, "a", "b")
		var inside [2]atomic.Int64
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				for j := range 200 {
					a := Ask{Now: time.Now(), Hash: mix(uint64(i*1000 + j))}
					s, err := p.Pick(a)
					if err == ErrFull {
						resumed := make(chan struct{}, 1)
						var w *Waiter
						if s, w, err = p.Wait(a, func() {
							select {
							case resumed <- struct{}{}:
							default:
							}
						}); w != nil {
							if j%10 == 0 {
								w.Leave()
								continue
							}
							<-resumed
							s, err = w.Result()
						}
					}
					if err != nil {
						t.Errorf("%s: %v", balance, err)
						return
					}
					n := &inside[s.port-'a']
					if n.Add(1) > most {
						t.Errorf("%s: more than max_conns at once", balance)
					}
					n.Add(-1)
					p.Release(s)
				}
			})
		}
		all.Wait()
		for _, s := range p.servers {
			if n := s.Active.Load(); n != 0 || p.QueueLength() != 0 {
				t.Errorf("%s: %d at %s and %d waiting in the end", balance, n, s.Name, p.QueueLength())
			}
		}
	}
}
