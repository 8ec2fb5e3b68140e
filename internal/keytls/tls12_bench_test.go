package keytls

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/keytls/wire"
)

// BenchmarkOldHandshake compares the TLS client's role in TLS 1.2 with
// crypto/tls's client: the same server, suite, group and key, and neither
// offers TLS 1.3. client-ns/op is the CPU time of the client's thread alone.
// "both generations" is ours with the hello of a Mandos server, which has key
// shares that are useless to an old client; "OpenPGP" reads and verifies an
// OpenPGP certificate as well.
func BenchmarkOldHandshake(b *testing.B) {
	key := testKey("RSA 2048")
	cert, err := tlsCertificate(key)
	if err != nil {
		b.Fatal(err)
	}
	server := &tls.Config{
		Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		CipherSuites: []uint16{uint16(wire.ECDHERSAAES256GCM)}, CurvePreferences: []tls.CurveID{tls.CurveP384},
	}
	pgp := pgpVector(b, "rsa2048")
	cryptoTLS := func(c net.Conn) error { return tls.Server(c, server).Handshake() }
	old := func(c net.Conn) error {
		p := &peer12{conn: c, script: script{key: pgp}}
		return p.handshake()
	}
	for _, v := range []struct {
		name   string
		client func(net.Conn) handshaker
		server func(net.Conn) error
	}{
		{"crypto-tls", func(c net.Conn) handshaker {
			return tls.Client(c, &tls.Config{
				InsecureSkipVerify: true, VerifyConnection: sameKey(key.Public()), MaxVersion: tls.VersionTLS12,
				CipherSuites: []uint16{uint16(wire.ECDHERSAAES256GCM)}, CurvePreferences: []tls.CurveID{tls.CurveP384},
			})
		}, cryptoTLS},
		{"keytls", func(c net.Conn) handshaker {
			return Client(c, &Config{certificates: x509Plug{}, Policy: Policy{
				Versions: []wire.Version{wire.VersionTLS12}, Suites: []wire.Suite{wire.ECDHERSAAES256GCM}, Groups: []wire.Group{wire.P384},
			}})
		}, cryptoTLS},
		{"keytls, both generations", func(c net.Conn) handshaker {
			return Client(c, &Config{certificates: x509Plug{}})
		}, cryptoTLS},
		{"keytls, both generations, OpenPGP", func(c net.Conn) handshaker {
			return Client(c, &Config{})
		}, old},
	} {
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var spent time.Duration
			for b.Loop() {
				x, y := net.Pipe()
				failed := make(chan error, 1)
				go func() { failed <- v.server(y) }()
				c := v.client(x)
				start := threadCPU(b)
				if err := c.Handshake(); err != nil {
					b.Fatal(err)
				}
				spent += threadCPU(b) - start
				if err := <-failed; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(spent)/float64(b.N), "client-ns/op")
		})
	}
}

// threadCPU returns the CPU time of the calling thread.
func threadCPU(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
