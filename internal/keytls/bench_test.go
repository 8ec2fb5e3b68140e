package keytls

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"mandos/internal/keytls/wire"
)

// handshakePair runs a handshake with a server of crypto/tls, in memory.
func handshakePair(b *testing.B, client func(net.Conn) handshaker, server *tls.Config) handshaker {
	x, y := net.Pipe()
	s := tls.Server(y, server)
	failed := make(chan error, 1)
	go func() { failed <- s.Handshake() }()
	c := client(x)
	if err := c.Handshake(); err != nil {
		b.Fatal(err)
	}
	if err := <-failed; err != nil {
		b.Fatal(err)
	}
	return c
}

var benchVariants = []struct {
	name  string
	key   string
	share wire.Group
}{
	{"Ed25519/X25519", "Ed25519", wire.X25519},
	{"ECDSA P-256/P-256", "ECDSA P-256", wire.P256},
	{"RSA 3072/X25519", "RSA 3072", wire.X25519},
}

// BenchmarkClientHandshake compares the TLS client's role, that of a Mandos
// server, with crypto/tls's client: the same server, suite, group, key share
// and key. client-ns/op is the CPU time of the client's thread alone; the other
// figures include the server's part.
func BenchmarkClientHandshake(b *testing.B) {
	for _, v := range benchVariants {
		key := testKey(v.key)
		cert, err := tlsCertificate(key)
		if err != nil {
			b.Fatal(err)
		}
		// crypto/tls doesn't let one choose the suite, but follows the client's
		// preference between AES and ChaCha: both agree on AES-128.
		server := &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
			CurvePreferences: []tls.CurveID{tls.CurveID(v.share)}, SessionTicketsDisabled: true,
		}
		suites := []wire.Suite{wire.AES128GCM}
		policy := Policy{Suites: suites, Groups: []wire.Group{v.share}, KeyShares: []wire.Group{v.share}}
		for name, client := range map[string]func(net.Conn) handshaker{
			"keytls": func(c net.Conn) handshaker {
				return Client(c, &Config{Policy: policy, certificates: x509Plug{}})
			},
			"crypto-tls": func(c net.Conn) handshaker {
				return tls.Client(c, &tls.Config{
					InsecureSkipVerify: true, VerifyConnection: sameKey(key.Public()), MinVersion: tls.VersionTLS13,
					CurvePreferences: []tls.CurveID{tls.CurveID(v.share)},
				})
			},
		} {
			b.Run(v.name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				start := threadTime(b)
				for b.Loop() {
					handshakePair(b, client, server)
				}
				spent := float64(threadTime(b)-start) / float64(b.N)
				b.ReportMetric(spent, "client-ns/op")
				if v.key == "Ed25519" {
					b.ReportMetric(spent/floorTime(b, v.share), "x-floor")
				}
			})
		}
	}
}

// BenchmarkIdleSession reports how much memory a session holds between its
// handshake and its secret, as during an approval, compared with crypto/tls's
// client. The waiting goroutine is not included.
func BenchmarkIdleSession(b *testing.B) {
	key := testKey("Ed25519")
	cert, err := tlsCertificate(key)
	if err != nil {
		b.Fatal(err)
	}
	// Without a HelloRetryRequest, which deadlocks on an unbuffered pipe.
	server := &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, SessionTicketsDisabled: true,
	}
	for name, client := range map[string]func(net.Conn) handshaker{
		"keytls": func(c net.Conn) handshaker { return Client(c, &Config{certificates: x509Plug{}}) },
		"crypto-tls": func(c net.Conn) handshaker {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		},
	} {
		b.Run(name, func(b *testing.B) {
			const sessions = 200
			for b.Loop() {
				idle := make([]handshaker, 0, sessions)
				before := heapSize()
				for range sessions {
					idle = append(idle, handshakePair(b, client, server))
				}
				b.ReportMetric(float64(heapSize()-before)/sessions, "B/session")
				runtime.KeepAlive(idle)
			}
		})
	}
}

// threadTime returns the CPU time that this thread has used, in nanoseconds.
func threadTime(b *testing.B) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}

func heapSize() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
