package attack_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A crowd is what a process of the role "crowd" is told to be.
type crowd struct {
	Addr    string
	Sources []string

	Silent   int // connections that say nothing
	Dripping int // that say a byte a second, half of them from the greeting on, half from the first TLS record on
	Rate     int // handshakes a second with the keys from Key on, Keys in number
	Key      int
	Keys     int

	Hosts int // boot at once, with the keys from Key on, and ask until they have their secret
}

// A tally is what a crowd tells when it ends.
type tally struct {
	Connected int64 // connections made
	CutOff    int64 // connections that the server ended
	Asked     int64 // handshakes begun for Rate
	Answered  int64 // of those, that were ended with close_notify

	Served  []float64 // when each of Hosts had its secret, in seconds
	Retried int64     // how often one of them had to ask again
}

var tallied struct{ connected, cutOff, asked, answered, retried atomic.Int64 }

// crowdMain is a crowd until its standard input ends, or until all its hosts
// are served.
func crowdMain() int {
	var c crowd
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&c); err != nil {
		panic(err)
	}
	source := func(i int) string { return c.Sources[i%len(c.Sources)] }
	for i := range c.Silent {
		go c.keep(source(i), func(conn net.Conn) {
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	for i := range c.Dripping {
		go c.keep(source(i), func(conn net.Conn) { drip(conn, i%2 == 0) })
	}
	if c.Rate > 0 {
		go c.ask(source)
	}
	var t tally
	if c.Hosts > 0 {
		t.Served = c.boot(source)
	} else {
		fmt.Fprintln(os.Stderr, "begun")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	t.Connected, t.CutOff = tallied.connected.Load(), tallied.cutOff.Load()
	t.Asked, t.Answered, t.Retried = tallied.asked.Load(), tallied.answered.Load(), tallied.retried.Load()
	b, err := json.Marshal(t)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(os.Stderr, "tally: %s\n", b)
	return 0
}

// keep keeps a connection open that does what do does, whatever the server
// does about it.
func (c crowd) keep(source string, do func(net.Conn)) {
	for {
		conn, err := dial(source, c.Addr)
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		tallied.connected.Add(1)
		do(conn)
		tallied.cutOff.Add(1)
		conn.Close()
	}
}

// drip writes a byte a second until the server ends the connection.
func drip(conn net.Conn, greeting bool) {
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		close(over)
	}()
	say := []byte("                1\r\n")
	if !greeting {
		if _, err := io.WriteString(conn, "1\r\n"); err != nil {
			return
		}
		say = []byte{22, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xfc}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := 0; ; i++ {
		if _, err := conn.Write([]byte{say[min(i, len(say)-1)]}); err != nil {
			return
		}
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
}

// ask makes Rate handshakes a second, whether they are answered or not.
func (c crowd) ask(source func(int) string) {
	under := make(chan struct{}, 2000)
	tick := time.NewTicker(time.Second / time.Duration(c.Rate))
	defer tick.Stop()
	for i := 0; ; i++ {
		<-tick.C
		select {
		case under <- struct{}{}:
		default:
			continue
		}
		go func() {
			tallied.asked.Add(1)
			if _, err := fetch(source(i), c.Addr, c.Key+i%c.Keys); err == nil {
				tallied.answered.Add(1)
			}
			<-under
		}()
	}
}

// boot asks for all Hosts at once, and again ten seconds after a failure, as
// mandos-client does. It returns when each had its secret.
func (c crowd) boot(source func(int) string) []float64 {
	fmt.Fprintln(os.Stderr, "begun")
	served := make([]float64, c.Hosts)
	start := time.Now()
	var hosts sync.WaitGroup
	for i := range c.Hosts {
		hosts.Go(func() {
			for get(source(i), c.Addr, c.Key+i) != nil {
				tallied.retried.Add(1)
				time.Sleep(10 * time.Second)
			}
			served[i] = time.Since(start).Seconds()
		})
	}
	hosts.Wait()
	return served
}
