package keytls

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"

	"mandos/internal/keytls/wire"
	"mandos/internal/secret"
)

// memoryEnv makes this program have a session with the address in it.
const memoryEnv = "KEYTLS_TEST_MEMORY"

// haveSession is a TLS client that reports each stage it reaches, and then
// waits for a line of input.
func haveSession(addr string) {
	step := bufio.NewScanner(os.Stdin)
	func() {
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			panic(err)
		}
		c := Client(raw, &Config{})
		if err := c.Handshake(); err != nil {
			panic(err)
		}
		if _, err := c.Write([]byte("the secret")); err != nil {
			panic(err)
		}
		fmt.Println("open")
		step.Scan()
		if err := c.CloseNotify(); err != nil {
			panic(err)
		}
	}()
	for range 3 { // what finalizers and cleanups hold goes with the next
		runtime.GC()
	}
	fmt.Println("closed")
	step.Scan()
}

// expand is HKDF-Expand-Label (RFC 8446, section 7.1) with SHA-384.
func expand(prk []byte, label string, context []byte, n int) []byte {
	var b cryptobyte.Builder
	b.AddUint16(uint16(n))
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte("tls13 " + label)) })
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(context) })
	return must(hkdf.Expand(sha512.New384, prk, string(b.BytesOrPanic()), n))
}

// TestNoKeysLeft looks through the memory of a process that had a session.
func TestNoKeysLeft(t *testing.T) {
	if !secret.Erases {
		t.Skip("Go itself leaves copies, unless built with GOEXPERIMENT=runtimesecret: make memory")
	}
	l := must(net.Listen("tcp", "localhost:0"))
	defer l.Close()
	cmd := exec.Command(must(os.Executable()))
	cmd.Env = append(os.Environ(), memoryEnv+"="+l.Addr().String())
	cmd.Stderr = os.Stderr
	stdin, stdout := must(cmd.StdinPipe()), bufio.NewScanner(must(cmd.StdoutPipe()))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = cmd.Wait()
	}()

	conn := must(l.Accept())
	defer conn.Close()
	p := newPuppet(t, conn)
	p.readHello()
	hello, shared := p.answer()
	secrets := map[string][]byte{"shared secret": bytes.Clone(shared)}
	p.sayHello(hello, shared)

	// RFC 8446, section 7.1, by hand.
	const size = sha512.Size384
	none := sha512.Sum384(nil)
	atHello := p.transcript.Sum(nil)
	p.flight(nil)
	early := must(hkdf.Extract(sha512.New384, make([]byte, size), nil))
	handshake := must(hkdf.Extract(sha512.New384, secrets["shared secret"], expand(early, "derived", none[:], size)))
	master := must(hkdf.Extract(sha512.New384, make([]byte, size), expand(handshake, "derived", none[:], size)))
	secrets["handshake secret"], secrets["master secret"] = handshake, master
	for label, from := range map[string][]byte{"c hs traffic": handshake, "s hs traffic": handshake, "c ap traffic": master, "s ap traffic": master} {
		transcript := atHello
		if strings.Contains(label, "ap") {
			transcript = p.transcript.Sum(nil)
		}
		traffic := expand(from, label, transcript, size)
		secrets[label] = traffic
		secrets[label+", key"] = expand(traffic, "key", nil, 32)
		secrets[label+", IV"] = expand(traffic, "iv", nil, 12)
	}

	await := func(want string) {
		t.Helper()
		if !stdout.Scan() || stdout.Text() != want {
			t.Fatalf("it said %q, want %q", stdout.Text(), want)
		}
	}
	await("open")
	image := memoryOf(t, cmd.Process.Pid)
	for _, name := range []string{"c ap traffic", "c ap traffic, key", "c ap traffic, IV"} {
		if !bytes.Contains(image, secrets[name]) {
			t.Errorf("the session is open, but its %s isn't found: this test is blind", name)
		}
	}
	fmt.Fprintln(stdin)
	p.send(wire.TypeAlert, wire.MarshalAlert(wire.CloseNotify))
	await("closed")
	image = memoryOf(t, cmd.Process.Pid)
	for name, value := range secrets {
		if n := bytes.Count(image, value); n > 0 {
			t.Errorf("the session is over, but its %s is in memory, %d times", name, n)
		}
	}
}

// memoryOf returns all of a process's writable memory.
func memoryOf(t *testing.T, pid int) []byte {
	t.Helper()
	maps := must(os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid)))
	mem := must(os.Open(fmt.Sprintf("/proc/%d/mem", pid)))
	defer mem.Close()
	var image bytes.Buffer
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if strings.HasPrefix(mode, "rw") {
			if _, err := io.Copy(&image, io.NewSectionReader(mem, int64(from), int64(to-from))); err != nil {
				t.Fatalf("reading %q: %v", line, err)
			}
		}
	}
	return image.Bytes()
}
