package keytls

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/keytls/wire"
)

// socketPair returns the two ends of a connection that needs no port.
func socketPair(t testing.TB) (a, b *net.UnixConn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// FuzzOldServer: against a TLS 1.2 server that changes any byte of what it
// sends, or sends anything else, a handshake that succeeds has proved its key,
// and what is read is what was sent.
func FuzzOldServer(f *testing.F) {
	key := pgpECDSA()
	const edit, remove, insert, raw, beforeCCS, ccs, finished, after, ops = 0, 1, 2, 3, 4, 5, 6, 7, 8
	const plain, oldForm, wrong, small, chacha = 1, 2, 4, 8, 16
	f.Add(uint8(0), []byte{})
	f.Add(uint8(plain|oldForm|chacha), []byte{})
	f.Add(uint8(wrong|small), []byte{after, 4, 23, 'a', 'b', 'c', after, 3, 21, 1, 0})
	f.Add(uint8(0), []byte{edit, 4, 1, 0, 30, 7, edit, 4, 2, 0, 9, 1})
	f.Add(uint8(0), []byte{remove, 1, 3})
	f.Add(uint8(0), []byte{insert, 5, 1, 4, 0, 0, 0})
	f.Add(uint8(0), []byte{beforeCCS, 5, 22, 0, 0, 0, 0})
	f.Add(uint8(0), []byte{ccs, 2, 1, 1})
	f.Add(uint8(0), []byte{finished, 2, 5, 1, after, 5, 22, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, form uint8, in []byte) {
		s := script{key: key, suite: wire.ECDHEECDSAAES256GCM, group: wire.X25519,
			plain: form&plain != 0, old: form&oldForm != 0, wrong: form&wrong != 0 && form&oldForm == 0}
		if form&small != 0 {
			s.chunk = 100
		}
		if form&chacha != 0 {
			s.suite = wire.ECDHEECDSAChaCha20Poly1305
		}
		steps := map[byte][][]byte{}
		for len(in) >= 2 {
			n := min(int(in[1]), len(in)-2)
			steps[in[0]%ops] = append(steps[in[0]%ops], in[2:2+n])
			in = in[2+n:]
		}
		write := func(op byte) func(*peer12) {
			return func(p *peer12) {
				for _, b := range steps[op] {
					if len(b) > 0 {
						p.send(wire.ContentType(b[0]), b[1:])
					}
				}
			}
		}
		a, b := socketPair(t)
		defer a.Close()
		_ = a.SetDeadline(time.Now().Add(time.Minute))
		// A side that waits for something that doesn't come sees the end
		// instead.
		end := func() { _ = b.CloseWrite() }
		first := len(steps[edit])+len(steps[remove])+len(steps[insert])+len(steps[raw]) > 0
		s.messages = func(flight [][]byte) [][]byte {
			for _, e := range steps[edit] {
				if len(e) > 3 {
					msg := flight[int(e[0])%len(flight)]
					if at := int(e[1])<<8 | int(e[2]); at < len(msg) {
						copy(msg[at:], e[3:])
					}
				}
			}
			for _, e := range steps[remove] {
				if len(e) > 0 && len(flight) > 1 {
					at := int(e[0]) % len(flight)
					flight = append(flight[:at:at], flight[at+1:]...)
				}
			}
			for _, e := range steps[insert] {
				if len(e) > 1 {
					at := int(e[0]) % (len(flight) + 1)
					flight = append(flight[:at:at], append([][]byte{e[1:]}, flight[at:]...)...)
				}
			}
			return flight
		}
		s.flight = func(p *peer12) {
			for _, b := range steps[raw] {
				p.write(b)
			}
			if first {
				end()
			}
		}
		s.beforeCCS = write(beforeCCS)
		if len(steps[ccs]) > 0 {
			s.ccs = func(p *peer12) { p.send(wire.TypeChangeCipherSpec, steps[ccs][0]) }
		}
		s.finished = func(msg []byte) []byte {
			for _, e := range steps[finished] {
				if len(e) > 1 && int(e[0]) < len(msg) {
					copy(msg[e[0]:], e[1:])
				}
			}
			return msg
		}
		var sent []byte
		closed := false
		for _, b := range steps[after] {
			switch {
			case len(b) > 0 && b[0] == byte(wire.TypeApplicationData):
				sent = append(sent, b[1:]...)
			case len(b) == 3 && b[0] == byte(wire.TypeAlert) && b[2] == byte(wire.CloseNotify):
				closed = true
			}
		}
		s.after = func(p *peer12) {
			write(after)(p)
			end()
		}

		peer := &peer12{script: s, conn: b}
		done := make(chan error, 1)
		go func() { done <- peer.serve() }()
		c := Client(a, &Config{})
		err := c.Handshake()
		if err == nil {
			if c.PeerIdentity() != fingerprint(t, key) {
				t.Errorf("proved %v", c.PeerIdentity())
			}
			if len(steps[finished]) == 0 && len(steps[ccs]) == 0 {
				got, err := io.ReadAll(io.LimitReader(c, 1<<20))
				if !bytes.HasPrefix(sent, got) || err == nil && !closed {
					t.Errorf("got %x, %v; %x was sent, closed: %v", got, err, sent, closed)
				}
			}
		} else if !c.PeerIdentity().Fingerprint.IsZero() {
			t.Error("a failed handshake proved something")
		}
		c.Close()
		<-done
	})
}
